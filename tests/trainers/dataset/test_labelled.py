"""Datasets of classes in every layout, written here and read back."""

import gzip
import struct

import cv2
import numpy as np
import pytest

from engine.errors import DataError
from trainers.dataset.good import Item, Pictures, read_dataset
from trainers.dataset.labelled import read_labelled, write_one_class
from trainers.dataset.subsets import spare_pictures
from trainers.progress import RecordedProgress

LABELS = {"train": [0, 1, 2, 1, 0, 1], "test": [2, 0, 1]}


def images(part, shape=(20, 18, 3)):
    return np.random.default_rng(len(LABELS[part])).integers(0, 256, (len(LABELS[part]), *shape), dtype=np.uint8)


def write_idx(path, values, packed):
    values = np.asarray(values, np.uint8)
    data = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()
    path = path.with_name(path.name + ".gz") if packed else path
    path.write_bytes(gzip.compress(data) if packed else data)


@pytest.fixture(params=[False, True])
def idx(tmp_path, request):
    for part, prefix in (("train", "train"), ("test", "t10k")):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte", images(part, (20, 18)), request.param)
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte", LABELS[part], request.param)
    return tmp_path


def test_idx_files_are_read_plain_or_packed(idx):
    data = read_labelled(idx)
    assert data.classes == ("0", "1", "2")
    for name, part in (("train", data.train), ("test", data.test)):
        assert part.labels.tolist() == LABELS[name]
        for i, grey in enumerate(images(name, (20, 18))):
            assert np.array_equal(part.images[i], np.dstack([grey] * 3))


def test_npz_of_arrays_is_read_with_its_names(tmp_path):
    for part in ("train", "test"):
        classes = np.array(["cat", "dog", "ship"])
        np.savez(tmp_path / f"some_{part}.npz", images=images(part), labels=LABELS[part], classes=classes)
    data = read_labelled(tmp_path)
    assert data.classes == ("cat", "dog", "ship")
    assert np.array_equal(np.stack([data.test.images[i] for i in range(3)]), images("test"))


def test_npz_of_files_end_to_end_is_decoded(tmp_path):
    for part in ("train", "test"):
        files = [cv2.imencode(".png", picture[..., ::-1])[1] for picture in images(part)]
        offsets = np.cumsum([0, *map(len, files)])
        np.savez(tmp_path / f"{part}.npz", jpeg=np.concatenate(files), offsets=offsets, labels=LABELS[part])
    data = read_labelled(tmp_path)
    assert data.classes == ("0", "1", "2")
    assert np.array_equal(np.stack([data.train.images[i] for i in range(6)]), images("train"))


def put_folders(root):
    for part in ("train", "test"):
        for i, (label, picture) in enumerate(zip(LABELS[part], images(part), strict=True)):
            path = root / part / "abc"[label] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), picture[..., ::-1])
    return root


def test_folders_of_classes_are_read(tmp_path):
    data = read_labelled(put_folders(tmp_path))
    assert data.classes == ("a", "b", "c")
    assert data.train.labels.tolist() == [0, 0, 1, 1, 1, 2]
    assert np.array_equal(data.test.images[2], images("test")[0])


def test_other_folders_are_no_classes(parts, tmp_path):
    for path in (parts, parts / "train", tmp_path, tmp_path / "nothing"):
        assert read_labelled(path) is None


def test_one_class_is_good_and_the_others_are_defects_by_name(tmp_path):
    data = read_labelled(put_folders(tmp_path / "classes"))
    dataset = read_dataset(write_one_class(data, 1, tmp_path / "b", RecordedProgress()))
    assert len(dataset.train) == 3
    assert sorted(str(item.defect) for item in dataset.test) == ["None", "a", "c"]
    written = {Pictures(dataset.train)[i].tobytes() for i in range(3)}
    assert written == {images("train")[i].tobytes() for i in (1, 3, 5)}


def damaged(tmp_path, kind):
    if kind == "idx":
        (tmp_path / "train-images-idx3-ubyte").write_bytes(b"\0\0\x0d\3" + bytes(12))
        return "not an idx file of bytes"
    if kind == "half":
        write_idx(tmp_path / "train-images-idx3-ubyte", images("train", (20, 18)), False)
        return "expected train-labels-idx1-ubyte"
    if kind == "pickle":
        for part in ("train", "test"):
            np.savez(tmp_path / f"{part}.npz", images=np.array([{}], object), labels=[0])
        return "not an npz file of plain arrays"
    for part in ("train", "test"):
        labels = LABELS[part][:-1] if kind == "few" else LABELS[part]
        pixels = images(part).astype(float) if kind == "float" else images(part)
        classes = ["cat"] if kind == "unnamed" else ["cat", "dog", "ship"]
        names = {"what": pixels} if kind == "strange" else {"images": pixels}
        np.savez(tmp_path / f"{part}.npz", labels=labels, classes=classes, **names)
    if kind == "two":
        (tmp_path / "train2.npz").write_bytes(b"")
    return {
        "few": "expected one label a picture",
        "float": "uint8, got",
        "unnamed": "only 1 classes are named",
        "strange": "expected arrays labels with images",
        "two": "expected one train file",
    }[kind]


@pytest.mark.parametrize("kind", ["idx", "half", "pickle", "few", "float", "unnamed", "strange", "two"])
def test_what_cannot_be_used_is_refused_by_name(kind, tmp_path):
    match = damaged(tmp_path, kind)
    with pytest.raises(DataError, match=match):
        read_labelled(tmp_path)


def test_spare_pictures_are_training_pictures_of_the_other_classes(idx, tmp_path_factory):
    data = read_labelled(idx)
    folder = tmp_path_factory.mktemp("one class")
    write_one_class(data, 1, folder, RecordedProgress(), spare=True)
    others = [data.train.images[row] for row in (0, 2, 4)]
    found = [Pictures([Item(path.name, path)])[0] for path in spare_pictures(folder)]
    assert len(found) == 3  # as many as the class has
    assert sorted(image.tobytes() for image in found) == sorted(image.tobytes() for image in others)
    assert len(read_dataset(folder).train) == 3
