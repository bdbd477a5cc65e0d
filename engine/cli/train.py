"""`engine train`: from a folder of good pictures to a calibrated bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from engine.cli.fuse import opener, report
from engine.cli.lazy import training
from engine.errors import UsageError


def train(
    data: Annotated[Path, typer.Argument(help="A folder: MVTec AD or BTAD layout, or good pictures.")],
    out: Annotated[Path, typer.Option(help="The bundle to write.")],
    method: Annotated[str, typer.Option(help="The detector: fyd, ssae, igd, droc, or several: ensemble.")] = "fyd",
    epochs: Annotated[
        int | None, typer.Option(min=0, help="Epochs of the learnt parts; fyd with 0 fits the Gaussian only.")
    ] = None,
    image_size: Annotated[int | None, typer.Option(min=32, help="Side of the network's input, px.")] = None,
    tile: Annotated[
        int | None,
        typer.Option(min=32, help="Look at pictures in tiles of this side, px, each as large as the network's input."),
    ] = None,
    overlap: Annotated[
        float | None, typer.Option(min=0.1, max=0.75, help="Share of a tile's side that neighbours share, 0.25.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same bundle.")] = 0,
    target_fpr: Annotated[
        float, typer.Option(min=1e-6, max=0.5, help="Share of good pictures that may be rejected.")
    ] = 0.01,
    threads: Annotated[int, typer.Option(min=0, help="0: all cores.")] = 0,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="fyd, igd, droc: efficientnet_lite0, resnet18, wide_resnet50_2; NAME=FILE gives its weights."
        ),
    ] = None,
    channels: Annotated[int | None, typer.Option(min=1, help="fyd: keep this many feature channels.")] = None,
    download_weights: Annotated[
        bool,
        typer.Option("--download-weights", help="fyd, igd, droc: fetch the backbone's weights where no file has them."),
    ] = False,
    objective: Annotated[
        Literal["1", "2", "both"] | None,
        typer.Option(help="ssae: the equation to train by; both is one detector of two."),
    ] = None,
    augmentation: Annotated[
        Literal["none", "rotations", "flips", "both"] | None,
        typer.Option(help="ssae: how pictures are turned while it learns; both unless given."),
    ] = None,
    width: Annotated[
        Literal["narrow", "full"] | None, typer.Option(help="ssae, igd, droc: narrow without a GPU, full with one.")
    ] = None,
    encoder: Annotated[
        Literal["scratch", "imagenet", "distilled", "self-supervised"] | None,
        typer.Option(help="igd: what the encoder is made of; `imagenet` is the backbone itself."),
    ] = None,
    pretext: Annotated[
        Literal["rotation", "contrastive", "distaug", "random", "imagenet"] | None,
        typer.Option(help="droc: what the representation learns by; the last two are baselines that learn nothing."),
    ] = None,
    network: Annotated[
        Literal["padding-free", "resnet18"] | None,
        typer.Option(help="droc: padding-free for maps, resnet18 for whole pictures, unless given."),
    ] = None,
    patch_size: Annotated[
        int | None, typer.Option(min=32, help="droc: side of the patches, px; the image size for whole pictures.")
    ] = None,
    classifier: Annotated[
        Literal["gde", "kde", "oc-svm", "oc-svm-linear", "cosine", "rotation-softmax"] | None,
        typer.Option(help="droc: what is fitted to the representation."),
    ] = None,
    representation: Annotated[
        Path | None, typer.Option(help="droc: a bundle whose representation is taken; only the classifier is fitted.")
    ] = None,
    members: Annotated[str | None, typer.Option(help="ensemble: methods, separated by commas.")] = None,
    review_fpr: Annotated[
        float | None,
        typer.Option(min=1e-6, max=0.5, help="ensemble: share of good pictures that may at least be reviewed."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Train on good pictures only, and calibrate."""
    base, progress = (training(name, "train") for name in ("base", "progress"))
    options = base.TrainOptions(
        data=data,
        out=out,
        epochs=epochs,
        image_size=image_size,
        tile=tile,
        overlap=overlap,
        seed=seed,
        target_fpr=target_fpr,
        threads=threads,
        backbone=backbone,
        channels=channels,
        download_weights=download_weights,
        objective=objective,
        augmentation=augmentation,
        width=width,
        encoder=encoder,
        pretext=pretext,
        network=network,
        patch_size=patch_size,
        classifier=classifier,
        representation=representation,
    )
    shown = progress.on_stderr()
    if method == "ensemble":
        ensemble = training("ensemble.train", "train")
        chosen = members.split(",") if members else ensemble.MEMBERS
        made = ensemble.train(options, chosen, review_fpr, opener(threads), shown)
    elif members is not None or review_fpr is not None:
        raise UsageError("--members and --review-fpr: options of --method ensemble only")
    else:
        made = training("registry", "train").get(method).train(options, shown)
    report(made, data, json)
