"""Every layout, built small, comes out as a source that the training pool reads and the doctor finds sound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ElementTree, SubElement

import cv2
import numpy as np
import pytest

from siammask import cli
from siammask.data import KINDS, Report, check_folder, import_folder
from siammask.errors import InputError, MediaError
from siammask.evaluate.sequences import read_indexed_png
from siammask.formats.masks import encode_indexed
from siammask.regions import run_lengths
from siammask.train import pool

WIDTH, HEIGHT = 64, 48


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1] // 8, size[0] // 8, 3), np.uint8)
    good, data = cv2.imencode(path.suffix, cv2.resize(pixels, size))
    assert good
    path.write_bytes(data.tobytes())
    return path


def mask(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_indexed(ids.astype(np.uint8)))


def square(x: int, y: int, side: int = 10) -> np.ndarray:
    ids = np.zeros((HEIGHT, WIDTH), bool)
    ids[y : y + side, x : x + side] = True
    return ids


def corners(x: float, y: float, side: float = 10) -> list[float]:
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_xml(path: Path, root: Element) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree(root).write(path)


def imported(folder: Path, kind: str, out: Path, **options: Any) -> tuple[Report, list[Any]]:
    """The report, and the clips of a pool built of the result, which the doctor must find sound."""
    report = import_folder(folder, kind, out, **options)
    checked = check_folder(out)
    assert not checked.fatal, checked.problems
    assert (checked.clips, checked.stills) == (report.clips, report.stills)
    assert (checked.pictures, checked.objects) == (report.pictures, report.objects)
    assert not out.with_name(f".{out.name}.part").exists()
    built = pool.build(out.parent, out.parent / "cache", [out.name])
    return report, list(built.clips)


# COCO


def coco(folder: Path, images: str = "val") -> dict[str, Any]:
    """Three pictures: shapes of each form, a crowd and a box, nothing."""
    for number in (1, 2, 3):
        picture(folder / images / f"{number:012d}.jpg", number)
    whole = {"size": [HEIGHT, WIDTH], "counts": run_lengths(square(40, 20, 8).T)}
    common = {"iscrowd": 0, "bbox": [0, 0, 1, 1]}
    return {
        "images": [{"id": n, "file_name": f"{n:012d}.jpg", "width": WIDTH, "height": HEIGHT} for n in (1, 2, 3)],
        "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [
            common | {"id": 1, "image_id": 1, "category_id": 7, "segmentation": [corners(2, 2, 20)]},
            common | {"id": 2, "image_id": 1, "category_id": 9, "segmentation": whole},
            common | {"id": 3, "image_id": 1, "category_id": 9, "segmentation": [corners(5, 5, 6)]},
            common | {"id": 4, "image_id": 2, "category_id": 7, "segmentation": [corners(4, 4)]},
            common | {"id": 5, "image_id": 2, "category_id": 9, "segmentation": [], "bbox": [30, 10, 8, 8]},
            common
            | {
                "id": 6,
                "image_id": 2,
                "category_id": 9,
                "iscrowd": 1,
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": run_lengths(square(10, 10, 8).T)},
            },
        ],
    }


def test_coco(tmp_path: Path) -> None:
    write_json(tmp_path / "in/annotations/instances_val.json", coco(tmp_path / "in"))
    write_json(tmp_path / "in/annotations/captions_val.json", {"images": [], "annotations": [{"caption": "a cat"}]})
    report, clips = imported(tmp_path / "in", "coco", tmp_path / "pool/coco")
    assert not report.problems
    assert (report.stills, report.objects) == (2, 4)
    first, second = clips
    assert first.name == "val_000000000001"
    assert first.categories == {1: "cat", 2: "dog", 3: "dog"}
    assert first.pictures[0].areas == {1: 400 - 36, 2: 64, 3: 36}  # smaller ones lie in front
    assert first.pictures[0].boxes[2] == (40, 20, 8, 8)
    assert second.pictures[0].ignore
    ids = read_indexed_png(tmp_path / "pool/coco/masks/val_000000000002.png")
    assert set(np.unique(ids)) == {0, 1, 255}
    assert (ids[10:18, 30:38] == 255).all()  # only a box
    assert ids[13, 13] == 1  # a crowd covers no object
    assert ids[16, 16] == 255


def test_coco_of_one_s_own(tmp_path: Path) -> None:
    """Without the usual names, and with the pictures in folders of their own."""
    data = coco(tmp_path / "in", "a/b")
    write_json(tmp_path / "in/export.json", data)
    write_json(tmp_path / "in/other.json", [1, 2])
    with pytest.raises(MediaError, match=r"nothing to import as coco; expected annotations/instances_"):
        import_folder(tmp_path / "in", "coco", tmp_path / "pool/none")
    _, clips = imported(tmp_path / "in", "coco-own", tmp_path / "pool/own")
    assert [clip.name for clip in clips] == ["000000000001", "000000000002"]


def test_what_is_wrong_with_coco(tmp_path: Path) -> None:
    data = coco(tmp_path / "in")
    notes = data["annotations"]
    data["images"] += [data["images"][0], {"id": 4, "file_name": "gone.jpg"}]
    notes += [
        notes[0],
        notes[0] | {"id": 20, "image_id": 99},
        notes[0] | {"id": 21, "category_id": 99},
        notes[0] | {"id": 22, "segmentation": [[1, 2, 3, 4]]},
        notes[0] | {"id": 23, "segmentation": [corners(80, 80)]},
        notes[3] | {"id": 24, "image_id": 3},
    ]
    data["images"][2]["width"] = 10
    write_json(tmp_path / "in/annotations/instances_val.json", data)
    (tmp_path / "in/annotations/instances_broken.json").write_text("{")
    report = import_folder(tmp_path / "in", "coco", tmp_path / "pool/coco")
    said = "\n".join(map(str, report.problems))
    for word in (
        "instances_broken.json: It cannot be read as JSON",
        "Image id 1 stands twice",
        "gone.jpg is missing",
        "Annotation 1 stands twice",
        "Annotation 20 is of image 99, which is not listed",
        "Annotation 21 has the unknown category 99",
        "Annotation 22: A polygon has 4 coordinates",
        "has an empty mask",
        "It is 64x48, but its annotation is for 10x48",
    ):
        assert word in said
    assert report.fatal == 6
    assert report.stills == 2
    assert [str(problem.file) for problem in report.problems] == sorted(str(p.file) for p in report.problems)


def test_an_entry_without_its_fields(tmp_path: Path) -> None:
    data = coco(tmp_path / "in")
    write_json(tmp_path / "in/annotations/instances_val.json", data)
    data["images"].append({"id": 8})
    write_json(tmp_path / "in/annotations/instances_wrong.json", data)
    root = Element("annotations")
    SubElement(SubElement(root, "track", id="one"), "box", frame="0")
    write_xml(tmp_path / "in/annotations.xml", root)
    report = import_folder(tmp_path / "in", "coco", tmp_path / "pool/coco")
    assert [problem.file.name for problem in report.problems] == ["instances_wrong.json"]
    assert "KeyError('file_name')" in report.problems[0].what
    with pytest.raises(MediaError, match="It is not as CVAT writes it"):
        import_folder(tmp_path / "in", "cvat", tmp_path / "pool/cvat")


# Videos with masks


def davis(folder: Path, values: dict[int, int]) -> None:
    """A sequence of four frames; `values` is what stands for the ids 1 and 2."""
    for n in range(4):
        picture(folder / f"JPEGImages/480p/walk/{n:05d}.jpg", n)
        ids = np.zeros((HEIGHT, WIDTH), np.uint8)
        for number, value in values.items():
            ids[square(4 + 3 * n, 20 * number - 18)] = value
        mask(folder / f"Annotations/480p/walk/{n:05d}.png", ids)


@pytest.mark.parametrize(("values", "objects"), [({1: 255}, [1]), ({1: 1, 2: 2}, [1, 2]), ({1: 1, 2: 255}, [1])])
def test_davis(tmp_path: Path, values: dict[int, int], objects: list[int]) -> None:
    """The one object of DAVIS 2016 is 255; beside other values 255 stands for what is of no known object."""
    davis(tmp_path / "in", values)
    report, (clip,) = imported(tmp_path / "in", "davis", tmp_path / "pool/davis")
    assert not report.problems
    assert clip.is_video
    assert len(clip.pictures) == 4
    assert [sorted(p.areas) for p in clip.pictures] == [objects] * 4
    assert clip.pictures[2].boxes[1] == (10, 2, 10, 10)


def test_what_is_wrong_with_davis(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    davis(folder, {1: 1})
    (folder / "Annotations/480p/walk/00001.png").unlink()
    picture(folder / "Annotations/480p/walk/00002.png")  # in colour
    data = (folder / "JPEGImages/480p/walk/00003.jpg").read_bytes()
    (folder / "JPEGImages/480p/walk/00003.jpg").write_bytes(data[:-20])
    mask(folder / "Annotations/480p/walk/00009.png", square(1, 1))
    mask(folder / "Annotations/480p/gone/00000.png", square(1, 1))
    report = import_folder(folder, "davis", tmp_path / "pool/davis")
    said = "\n".join(map(str, report.problems))
    for word in ("has no mask", "00002.png: It is a", "ends in the middle", "There is no frame 00009", "are missing"):
        assert word in said, said
    assert report.pictures == 1


def test_youtube_takes_the_frames_that_have_masks(tmp_path: Path) -> None:
    for n in range(12):
        picture(tmp_path / f"in/train/JPEGImages/abc/{n:05d}.jpg", n)
        if n % 5 == 0:
            mask(tmp_path / f"in/train/Annotations/abc/{n:05d}.png", square(n, n) * 3)
    report, (clip,) = imported(tmp_path / "in", "ytvos", tmp_path / "pool/ytvos")
    assert not report.problems
    assert [sorted(p.areas) for p in clip.pictures] == [[3]] * 3


def test_only_some_clips(tmp_path: Path) -> None:
    davis(tmp_path / "in", {1: 1})
    with pytest.raises(MediaError, match=r"First problem: .* run is asked for but not there"):
        import_folder(tmp_path / "in", "davis", tmp_path / "pool/davis", only=["run"])
    _, clips = imported(tmp_path / "in", "davis", tmp_path / "pool/davis", only=["walk"])
    assert [clip.name for clip in clips] == ["walk"]


# Boxes


def test_imagenet_videos_and_stills(tmp_path: Path) -> None:
    """Two tracks, one from frame 1 to 2; and a still of DET."""

    def annotation(path: Path, objects: list[tuple[str | None, list[int]]]) -> None:
        root = Element("annotation")
        size = SubElement(root, "size")
        SubElement(size, "width").text, SubElement(size, "height").text = str(WIDTH), str(HEIGHT)
        for track, box in objects:
            row = SubElement(root, "object")
            if track is not None:
                SubElement(row, "trackid").text = track
            SubElement(row, "name").text = "n01"
            place = SubElement(row, "bndbox")
            for name, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
                SubElement(place, name).text = str(value)
        write_xml(path, root)

    for n in range(4):
        objects: list[tuple[str | None, list[int]]] = [("0", [n, 2, n + 10, 12])]
        if n in (1, 2):
            objects.append(("1", [30, 20 + n, 40, 40 + n]))
        annotation(tmp_path / f"in/Annotations/VID/train/ILSVRC_0/walk/{n:06d}.xml", objects)
        picture(tmp_path / f"in/Data/VID/train/ILSVRC_0/walk/{n:06d}.JPEG", n)
    annotation(tmp_path / "in/Annotations/DET/train/a/still.xml", [(None, [1, 2, 31, 42])])
    picture(tmp_path / "in/Data/DET/train/a/still.JPEG")
    annotation(tmp_path / "in/Annotations/DET/train/a/gone.xml", [(None, [1, 2, 31, 42])])
    report, clips = imported(tmp_path / "in", "vid", tmp_path / "pool/vid")
    assert [p.what for p in report.problems] == ["Its picture is missing."]
    by_name = {clip.name: [p.boxes[1] for p in clip.pictures] for clip in clips}
    assert by_name["ILSVRC_0_walk_0"] == [(n, 2, 10, 10) for n in range(4)]
    assert by_name["ILSVRC_0_walk_1"] == [(30, 21, 10, 20), (30, 22, 10, 20)]
    assert by_name["a_still"] == [(1, 2, 30, 40)]


@pytest.mark.parametrize("kind", ["got10k", "lasot"])
def test_one_object_with_boxes(tmp_path: Path, kind: str) -> None:
    """On the third frame it cannot be seen; the fourth box has no area, the fifth reaches beyond the frame."""
    place = tmp_path / "in/train/one"
    for n in range(5):
        picture(place / (f"{n + 1:08d}.jpg" if kind == "got10k" else f"img/{n + 1:08d}.jpg"), n)
    rows = ["1,2,10,10", "2.5,2,10,10.25", "3,2,10,10", "4,2,0,10", "60,2,10,10"]
    (place / "groundtruth.txt").write_text("\n".join(rows) + "\n")
    if kind == "got10k":
        (place / "absence.label").write_text("0\n0\n1\n0\n0\n")
    else:
        (place / "full_occlusion.txt").write_text("0,0,1,0,0")
        (place / "out_of_view.txt").write_text("0,0,0,0,0")
    report, (clip,) = imported(tmp_path / "in", kind, tmp_path / "pool/boxes")
    assert [p.boxes.get(1) for p in clip.pictures] == [
        (1, 2, 10, 10),
        (2.5, 2, 10, 10.25),
        None,
        None,
        (60, 2, 10, 10),
    ]
    assert [(problem.fatal, problem.what) for problem in report.problems] == [
        (False, "1 boxes of one reach beyond the frame."),
        (True, "The box (4.0, 2.0, 0.0, 10.0) of object 1 lies outside of the frame or has no area."),
    ]


def test_counts_that_differ(tmp_path: Path) -> None:
    for name, rows in (("good", 2), ("bad", 3)):
        for n in range(2):
            picture(tmp_path / f"in/{name}/{n}.jpg", n)
        (tmp_path / f"in/{name}/groundtruth.txt").write_text("1,2,10,10\n" * rows)
    (tmp_path / "in/words").mkdir()
    (tmp_path / "in/words/groundtruth.txt").write_text("one,two\n")
    report, clips = imported(tmp_path / "in", "got10k", tmp_path / "pool/a")
    assert [clip.name for clip in clips] == ["good"]
    assert "There are 2 frames, 3 boxes" in str(report.problems[0])
    assert "cannot be read as numbers" in str(report.problems[1])


# Exports of one's own


def test_cvat_images(tmp_path: Path) -> None:
    picture(tmp_path / "in/images/sub/a.png")
    root = Element("annotations")
    row = SubElement(root, "image", name="sub/a.png", width=str(WIDTH), height=str(HEIGHT))
    pairs = np.reshape(corners(2, 2), (-1, 2))
    SubElement(row, "polygon", label="cat", points=";".join(f"{x},{y}" for x, y in pairs), z_order="0")
    part = np.ones((4, 6), bool)
    part[0, 0] = False
    runs = ", ".join(map(str, run_lengths(part)))
    SubElement(row, "mask", label="dog", rle=runs, left="8", top="9", width="6", height="4", z_order="1")
    SubElement(row, "box", label="dog", xtl="40", ytl="10", xbr="50", ybr="20")
    SubElement(row, "polyline", label="dog", points="1,2;3,4")
    SubElement(root, "image", name="gone.png", width="9", height="9")
    write_xml(tmp_path / "in/annotations.xml", root)
    report, (clip,) = imported(tmp_path / "in", "cvat", tmp_path / "pool/cvat")
    assert clip.name == "sub_a"
    assert clip.categories == {1: "cat", 2: "dog"}
    assert clip.pictures[0].areas == {1: 100 - 11, 2: 23}  # the mask lies in front
    assert read_indexed_png(tmp_path / "pool/cvat/masks/sub_a.png")[15, 45] == 255
    assert [problem.fatal for problem in report.problems] == [False, True]


@pytest.mark.parametrize("shape", ["polygon", "box"])
def test_cvat_video(tmp_path: Path, shape: str) -> None:
    """Two tracks; the second leaves the picture after frame 1. With masks both are in one clip."""
    root = Element("annotations")
    task = SubElement(SubElement(root, "meta"), "task")
    SubElement(task, "name").text = "My video.mp4"
    size = SubElement(task, "original_size")
    SubElement(size, "width").text, SubElement(size, "height").text = str(WIDTH), str(HEIGHT)
    for track, x in ((0, 2), (1, 40)):
        row = SubElement(root, "track", id=str(track), label="cat")
        for n in range(3):
            values = {"frame": str(n), "outside": str(int(track == 1 and n == 2)), "occluded": "0"}
            if shape == "box":
                values |= {"xtl": str(x), "ytl": str(5 + n), "xbr": str(x + 10), "ybr": str(15 + n)}
            else:
                pairs = np.reshape(corners(x, 5 + n), (-1, 2))
                values["points"] = ";".join(f"{a},{b}" for a, b in pairs)
            SubElement(row, shape, values)
    write_xml(tmp_path / "in/annotations.xml", root)
    for n in range(3):
        picture(tmp_path / f"in/images/frame_{n:06d}.PNG", n)
    report, clips = imported(tmp_path / "in", "cvat", tmp_path / "pool/cvat")
    assert not report.problems
    if shape == "box":
        assert [clip.name for clip in clips] == ["My_video_0", "My_video_1"]
        assert [p.boxes[1] for p in clips[1].pictures] == [(40, 5, 10, 10), (40, 6, 10, 10)]
    else:
        (clip,) = clips
        assert [sorted(p.boxes) for p in clip.pictures] == [[1, 2], [1, 2], [1]]
        assert clip.pictures[1].boxes[2] == (40, 6, 10, 10)


@pytest.mark.parametrize(
    "names", ["names: [cat, 'dog']", "names:\n  0: cat\n  1: dog\n", "names:\n- cat\n- dog\nnc: 2"]
)
def test_yolo(tmp_path: Path, names: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "data.yaml").write_text(f"train: images/train\n{names}\n")
    for name in ("a", "b", "c"):
        picture(folder / f"images/train/{name}.jpg")
    shares = np.reshape(corners(16, 12, 12), (-1, 2)) / (WIDTH, HEIGHT)
    line = " ".join(f"{v:.6f}" for v in shares.ravel())
    place = folder / "labels/train"
    place.mkdir(parents=True)
    (place / "a.txt").write_text(f"1 {line}\n0 0.75 0.5 0.125 0.25\n")
    (place / "b.txt").write_text("1 0.1 0.2 0.3\ncat 1 2\n1 0.5 0.5 1.5 0.5 1.5 0.9\n")
    (place / "d.txt").write_text(f"1 {line}\n")
    report, clips = imported(folder, "yolo-seg", tmp_path / "pool/yolo")
    assert [clip.name for clip in clips] == ["train_a", "train_b"]
    assert clips[0].categories == {1: "dog"}
    assert clips[0].pictures[0].areas == {1: 144}
    assert clips[0].pictures[0].ignore
    said = "\n".join(map(str, report.problems))
    for word in ("c.jpg: It has no label file", "b.txt: Line 1", "b.txt: Line 2", "b.txt: Line 3 has coordinates"):
        assert word in said, said
    assert "d.txt: There is no picture for it" in said
    assert report.fatal == 4


# What all share


def test_ids_that_clash_and_too_many_objects(tmp_path: Path) -> None:
    data = coco(tmp_path / "in")
    data["annotations"] = [
        {"id": n, "image_id": 1, "category_id": 7, "segmentation": [corners(n % 60, n // 60 * 3, 1)]}
        for n in range(300)
    ]
    write_json(tmp_path / "in/instances_a.json", data)
    write_json(tmp_path / "in/b/instances_a.json", data)
    report = import_folder(tmp_path / "in", "coco", tmp_path / "pool/coco")
    said = [problem.what for problem in report.problems if problem.fatal]
    assert sum("one more than the 254" in what for what in said) == 46
    assert any("a_000000000001 is there already" in what for what in said)
    assert report.objects == 254


def test_what_cannot_be_begun(tmp_path: Path) -> None:
    davis(tmp_path / "in", {1: 1})
    with pytest.raises(InputError, match="No layout is called 'kitti'; choose from coco"):
        import_folder(tmp_path / "in", "kitti", tmp_path / "out")
    with pytest.raises(MediaError, match="is not a folder"):
        import_folder(tmp_path / "none", "davis", tmp_path / "out")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="is there already"):
        import_folder(tmp_path / "in", "davis", tmp_path / "file")
    with pytest.raises(MediaError, match="cannot be written"):
        import_folder(tmp_path / "in", "davis", tmp_path / "file" / "out")
    for kind in KINDS:
        with pytest.raises(MediaError, match=f"nothing to import as {kind}"):
            import_folder(tmp_path / "in/JPEGImages/480p", kind, tmp_path / "out")


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    davis(tmp_path / "in", {1: 255})
    (tmp_path / "list.txt").write_text("walk\n")
    out = tmp_path / "pool/davis"

    def run(*argv: object) -> int:
        with pytest.raises(SystemExit) as ended:
            cli.main(["data", *map(str, argv)])
        return int(ended.value.code or 0)

    assert run("import", tmp_path / "in", "--kind", "davis", "--out", out, "--only", tmp_path / "list.txt") == 0
    assert "1 clips and 0 stills: 4 pictures, 1 objects; 0 errors, 0 notes." in capsys.readouterr().out
    assert run("check", tmp_path / "pool") == 0
    (out / "walk/masks/00002.png").unlink()
    assert run("check", tmp_path / "pool", "--json", tmp_path / "report.json") == 1
    said = capsys.readouterr().out
    assert f"{out / 'walk/frames/00002.jpg'}: It has no mask of its name." in said
    assert f"{out / 'walk/masks'}: There are 4 frames but 3 masks." in said
    assert json.loads((tmp_path / "report.json").read_text())["fatal"] == 2
    assert run("import", tmp_path / "in", "--kind", "davis", "--out", out) == 1
    assert run("import", tmp_path / "in", "--kind", "davis", "--out", out, "--only", tmp_path / "none") == 1
    assert run("check", tmp_path / "in") == 1
