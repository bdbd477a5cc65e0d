"""Finding, reading and checking pictures on disc."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from engine.errors import DataError
from trainers.dataset.good import MIN_GOOD, Pictures, batches, blocks, check_training, read_dataset, read_mask


def put(path: Path, seed: int = 0, size: tuple[int, int] = (24, 32)) -> Path:
    """A noise picture of (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    cv2.imwrite(str(path), pixels)
    return path


def put_mask(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)
    return path


def names(items):
    return [item.name for item in items]


def test_mvtec_layout(tmp_path):
    for name in ("train/good/010.png", "train/good/9.png", "test/good/0.png", "test/scratch/1.png", "test/dent/2.PNG"):
        put(tmp_path / name)
    mask = put_mask(tmp_path / "ground_truth/scratch/1_mask.png", np.zeros((24, 32), np.uint8))
    dataset = read_dataset(tmp_path)
    assert dataset.layout == "mvtec"
    assert names(dataset.train) == ["train/good/9.png", "train/good/010.png"]
    assert [(i.name, i.defect, i.mask) for i in dataset.test] == [
        ("test/dent/2.PNG", "dent", None),
        ("test/good/0.png", None, None),
        ("test/scratch/1.png", "scratch", mask),
    ]
    assert dataset.defects == ("dent", "scratch")
    assert dataset.judged == dataset.test


def test_btad_layout_pairs_masks_by_stem(tmp_path):
    for name in ("train/ok/0000.bmp", "test/ok/0001.bmp", "test/ko/0002.bmp", "test/ko/0003.bmp"):
        put(tmp_path / name)
    bmp = put_mask(tmp_path / "ground_truth/ko/0002.bmp", np.zeros((24, 32), np.uint8))
    png = put_mask(tmp_path / "ground_truth/ko/0003.png", np.zeros((24, 32), np.uint8))
    dataset = read_dataset(tmp_path)
    assert dataset.layout == "btad"
    assert names(dataset.train) == ["train/ok/0000.bmp"]
    assert [(i.defect, i.mask) for i in dataset.test] == [("ko", bmp), ("ko", png), (None, None)]


def test_plain_folder_is_all_good(tmp_path):
    for name in ("b/2.jpg", "b/10.jpg", "a.tif", ".hidden/x.png", ".x.png"):
        put(tmp_path / name)
    (tmp_path / "readme.txt").write_text("not a picture")
    dataset = read_dataset(tmp_path)
    assert dataset.layout == "folder"
    assert names(dataset.train) == ["a.tif", "b/2.jpg", "b/10.jpg"]
    assert dataset.judged == dataset.train
    assert dataset.test == ()


def test_folders_that_cannot_be_read_as_good_pictures(tmp_path):
    put(tmp_path / "sets/screw/train/good/0.png")
    put(tmp_path / "mixed/good/0.png")
    put(tmp_path / "mixed/bad/0.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "hollow/train/good").mkdir(parents=True)
    (tmp_path / "file.txt").write_text("")
    cases = {
        "sets": "expected one dataset, found 1 in folders (screw)",
        "mixed": "found 'good' beside bad",
        "empty": "no pictures here",
        "hollow": "no pictures in train/good",
        "file.txt": "found a file",
        "missing": "found nothing",
    }
    for folder, message in cases.items():
        with pytest.raises(DataError) as caught:
            read_dataset(tmp_path / folder)
        assert str(caught.value).startswith(str(tmp_path / folder))
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_pictures_become_rgb_8_bit_and_ignore_orientation(tmp_path):
    grey16 = np.linspace(0, 65535, 24 * 32).reshape(24, 32).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), grey16)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    Image.new("RGB", (32, 24), (200, 30, 10)).save(tmp_path / "b.jpg", exif=exif, quality=95)
    grey, red = Pictures(read_dataset(tmp_path).train)
    assert grey.shape == (24, 32, 3)
    assert grey.dtype == np.uint8
    assert (grey[..., 0] == grey[..., 2]).all()
    assert np.abs(grey[..., 0] - grey16 / 257).max() <= 1
    assert red.shape == (24, 32, 3)
    assert np.abs(red.astype(int) - (200, 30, 10)).max() < 12


def test_pictures_are_read_when_asked_for(tmp_path):
    for i in range(3):
        put(tmp_path / f"{i}.png", seed=i)
    pictures = Pictures(read_dataset(tmp_path).train)
    (tmp_path / "1.png").unlink()
    assert pictures[2].shape == (24, 32, 3)
    with pytest.raises(DataError, match=r"1\.png: cannot be read"):
        pictures[1]
    assert names(pictures.subset([2, 0]).items) == ["2.png", "0.png"]


def test_batches_resize_and_keep_order():
    images = [np.full((20 + i, 30, 3), 10 * i, np.uint8) for i in range(5)]
    got = list(batches(images, 2, 16, 16))
    assert [b.shape for b in got] == [(2, 16, 16, 3), (2, 16, 16, 3), (1, 16, 16, 3)]
    assert [int(picture.mean()) for b in got for picture in b] == [0, 10, 20, 30, 40]


def test_training_set_records_what_was_used(tmp_path):
    for i in range(MIN_GOOD):
        put(tmp_path / f"{i}.png", seed=i, size=(24, 32 + i))
    training = check_training(read_dataset(tmp_path))
    pairs = [(f"{i}.png", hashlib.sha256((tmp_path / f"{i}.png").read_bytes()).hexdigest()) for i in range(MIN_GOOD)]
    expected = hashlib.sha256("".join(f"{name}\0{content}\n" for name, content in sorted(pairs)).encode())
    assert training.record.sha256 == expected.hexdigest()
    assert training.record.n_good == MIN_GOOD
    assert training.record.height_range == (24, 24)
    assert training.record.width_range == (32, 31 + MIN_GOOD)


def test_pictures_are_found_again_by_their_contents(tmp_path):
    for i in range(MIN_GOOD):
        put(tmp_path / f"{i:02}.png", seed=i)
    training = check_training(read_dataset(tmp_path))
    asked = [training.contents[row] for row in (3, 0, 2)]
    assert training.rows_of(asked).tolist() == [0, 2, 3]
    assert training.rows_of([]).tolist() == []


def test_duplicates_are_left_out_with_one_line(tmp_path):
    for i in range(6):
        put(tmp_path / f"{i}.png", seed=i)
    for copy in ("6.png", "7.png", "8.png", "9.png"):
        (tmp_path / copy).write_bytes((tmp_path / "2.png").read_bytes())
    training = check_training(read_dataset(tmp_path))
    assert names(training.pictures.items) == [f"{i}.png" for i in range(6)]
    (line,) = training.warnings
    assert "4 duplicates are left out of training: 6.png (= 2.png), 7.png (= 2.png), 8.png (= 2.png) and 1 more" in line


def test_other_sizes_are_named_but_used(tmp_path):
    for i in range(6):
        put(tmp_path / f"{i}.png", seed=i, size=(24, 32) if i else (48, 20))
    training = check_training(read_dataset(tmp_path))
    assert len(training.pictures) == 6
    (line,) = training.warnings
    assert "2 sizes, most often 32 x 24 px (5 of 6); others: 0.png (20 x 48)" in line


def test_unreadable_files_are_named(tmp_path):
    for i in range(8):
        put(tmp_path / f"{i}.png", seed=i)
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "3.png").write_text("text")
    (tmp_path / "4.png").write_bytes(b"")
    put(tmp_path / "5.png", size=(8, 40))
    with pytest.raises(DataError) as caught:
        check_training(read_dataset(tmp_path))
    assert "4 of 8 training pictures cannot be read: 1.png, 3.png, 4.png and 1 more" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_few_pictures_counting_duplicates_once(tmp_path):
    for i in range(MIN_GOOD - 1):
        put(tmp_path / f"{i}.png", seed=i)
    (tmp_path / "x.png").write_bytes((tmp_path / "0.png").read_bytes())
    with pytest.raises(DataError, match=rf"at least {MIN_GOOD} different .* got 3 \(1 more are duplicates\): 0\.png"):
        check_training(read_dataset(tmp_path))


def test_test_folder_alone_has_nothing_to_train_on(tmp_path):
    put(tmp_path / "test/good/0.png")
    with pytest.raises(DataError, match="got 0;"):
        check_training(read_dataset(tmp_path))


def test_blocks_are_contiguous_and_even():
    parts = blocks(23, 5)
    assert np.concatenate(parts).tolist() == list(range(23))
    assert {len(part) for part in parts} == {4, 5}
    with pytest.raises(ValueError, match="k=4, n=3"):
        blocks(3, 4)


def test_masks_are_binarised_at_half_and_resized_by_nearest_neighbour(tmp_path):
    grey = np.array([[0, 127, 128, 255]], np.uint8).repeat(2, axis=0)
    path = put_mask(tmp_path / "m.png", grey)
    assert read_mask(path, 2, 4)[0].tolist() == [False, False, True, True]
    assert read_mask(path, 4, 8)[3].tolist() == [False] * 4 + [True] * 4
    assert read_mask(put_mask(tmp_path / "one.png", grey // 255), 2, 4)[0].tolist() == [False, False, False, True]
    stripes = put_mask(tmp_path / "stripes.png", np.tile(np.array([[255, 0]], np.uint8), (8, 4)))
    assert read_mask(stripes, 4, 4).all()  # every second column is taken, none is mixed
    (tmp_path / "bad.png").write_text("text")
    with pytest.raises(DataError, match=r"bad\.png: expected a ground truth mask"):
        read_mask(tmp_path / "bad.png", 2, 4)


def put_two(root, normal, abnormal):
    for name, count in (("normal", normal), ("abnormal", abnormal)):
        (root / name).mkdir(parents=True)
        for i in range(count):
            put(root / name / f"{i}.png", seed=i)
    return root


def test_two_folders_hold_out_a_quarter_of_the_normal_pictures_in_blocks(tmp_path):
    dataset = read_dataset(put_two(tmp_path, 40, 3))
    assert dataset.layout == "two-folder"
    tested = [6, 7, 14, 15, 22, 23, 30, 31, 38, 39]
    assert names(dataset.train) == [f"normal/{i}.png" for i in range(40) if i not in tested]
    assert names(i for i in dataset.test if i.defect is None) == [f"normal/{i}.png" for i in tested]
    assert [item.defect for item in dataset.test if item.defect] == ["abnormal"] * 3


def test_two_folders_too_thin_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"at least 20 pictures in normal and some in abnormal .* got 19 and 3"):
        read_dataset(put_two(tmp_path / "few", 19, 3))
    with pytest.raises(DataError, match="got 20 and 0"):
        read_dataset(put_two(tmp_path / "none", 20, 0))


def test_a_split_medical_set_is_read_by_its_names(tmp_path):
    for name in ("train/normal/0.png", "test/normal/1.png", "test/abnormal/2.png"):
        put(tmp_path / name)
    dataset = read_dataset(tmp_path)
    assert names(dataset.train) == ["train/normal/0.png"]
    assert [(item.name, item.defect) for item in dataset.test] == [
        ("test/abnormal/2.png", "abnormal"),
        ("test/normal/1.png", None),
    ]
