"""The rows of FYD's tables, as settings."""

from __future__ import annotations

from dataclasses import replace

from trainers.fyd.settings import Settings

EPOCHS = 20  # not in the paper; ICA needs 15 to settle

_NOWHERE = (False, False, False)
_EVERYWHERE = (True, True, True)
_AFTER = {"layer 1": (True, False, False), "layer 2": (False, True, False), "layer 3": (False, False, True)}


def tables(protocol: str, settings: Settings) -> list[tuple[str, str, Settings]]:
    """(table, row, settings) of every row of a protocol, equal settings where the paper shows one model twice.

    The third mark of Table 4 is illegible: it stands for one half of the coarse alignment, and both are here. Table 6's
    baseline lacks the FCA only. Table 3 trains without ICA and FCA, as its appendix says.
    """
    learnt = replace(settings, epochs=settings.epochs or EPOCHS, int8=False)
    fine = replace(learnt, ica=False, fca=_NOWHERE)
    plain = replace(fine, non_contrastive=False)
    with_fca = replace(fine, fca=_EVERYWHERE)
    with_ica = replace(fine, ica=True)
    whole = replace(with_fca, ica=True)
    if protocol == "ablation":
        return [
            ("Table 4", "baseline", plain),
            ("Table 4", "+ non-contrastive", fine),
            ("Table 4", "+ non-contrastive, FCA", with_fca),
            ("Table 4", "+ non-contrastive, ICA", with_ica),
            ("Table 4", "+ non-contrastive, ICA, FCA", whole),
            ("Table 6", "no FCA", with_ica),
            *(("Table 6", f"FCA after {name}", replace(with_ica, fca=after)) for name, after in _AFTER.items()),
            ("Table 6", "FCA after all three", whole),
        ]
    if protocol == "disturbed":
        return [("Table 3", "baseline", plain), ("Table 3", "non-contrastive", fine)]
    return []
