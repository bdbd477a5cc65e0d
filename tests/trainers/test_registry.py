"""Every method by its name, and what all of them must keep to."""

import pytest

from engine.contract import NAME_PATTERN
from engine.errors import UsageError
from trainers import registry
from trainers.base import Trainer, TrainOptions
from trainers.dataset.copies import copy_named
from trainers.evaluation.protocol import PROTOCOLS
from trainers.fyd import Fyd
from trainers.progress import RecordedProgress


@pytest.mark.parametrize("name", registry.names())
def test_a_method_is_found_under_its_name(name):
    trainer: Trainer = registry.get(name)
    assert trainer.name == name
    assert NAME_PATTERN.fullmatch(name)


@pytest.mark.parametrize("name", registry.names())
def test_a_method_refuses_a_folder_without_pictures_and_leaves_nothing(name, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no pictures here"):
        registry.get(name).train(TrainOptions(tmp_path / "empty", tmp_path / "out"), RecordedProgress())
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize("name", registry.names())
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_variants_are_rows_of_tables(name, protocol):
    variants = registry.get(name).variants(protocol)
    rows = [(variant.table, variant.label) for variant in variants]
    assert len(rows) == len(set(rows))
    assert all(variant.trainer.name == name for variant in variants)
    for variant in variants:
        shared = variant.representation
        for copy in (*variant.copies, *([shared.copy] if shared and shared.copy else [])):
            assert callable(copy_named(copy))


def test_an_unknown_method_is_refused():
    with pytest.raises(UsageError, match="--method best: unknown; choose one of fyd"):
        registry.get("best")


def test_a_name_is_registered_once():
    table = registry.Registry()
    table.add(Fyd())
    with pytest.raises(ValueError, match="'fyd' is registered already"):
        table.add(Fyd())
