"""COCO's images and captions, on a small folder in the layout of the original."""

import hashlib
import io
import shutil
import sys
import urllib.error
import zipfile
from pathlib import Path

import clip
import pytest
import torch
from clip.model import CLIP
from helpers.file_server import serving
from helpers.originals import make_coco

from utils.data import captions as captions_module
from utils.data import coco_captions
from utils.data.captions import caption_features
from utils.data.coco_captions import CocoCaptionsDataModule, read_captions
from utils.data.examples import InMemory
from utils.data.module import SPLITS, DataError
from utils.data.sources import coco

pytestmark = [  # what clip does to read its official files, and how they were made
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]

SIZES = {"train": 12, "test": 5}
TEST_IDS = range(12, 17)
DIM = 8


def caption(image, k):
    return f"{'abcde'[k % 5]} {image} val2017"


def n_captions(image):
    return 5 if image % 3 else 6


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Images and captions whose ids are in no order."""
    folder = tmp_path_factory.mktemp("data")
    make_coco(folder, None)
    return folder


@pytest.fixture
def copy(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "copy"))


@pytest.fixture(scope="module")
def tower():
    """A small CLIP."""
    torch.manual_seed(0)
    return CLIP(DIM, 32, 1, 64, 32, 77, 49408, 64, 1, 1).eval()


@pytest.fixture(scope="module")
def weights(tower, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    torch.save(tower.state_dict(), path)
    return str(path)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(coco, "SIZES", SIZES)


def images(folder, **kwargs):
    defaults = {"side": 16, "batch_size": 5, "eval_batch_size": 4}
    return coco.coco(**{"data_dir": str(folder)} | defaults | kwargs)


def texts(folder, weights, **kwargs):
    defaults = {"feature_dim": DIM, "batch_size": 5, "eval_batch_size": 4}
    settings = {"data_dir": str(folder), "clip_weights": weights} | defaults | kwargs
    return CocoCaptionsDataModule(**settings)


def gather(loader, i=0):
    return torch.cat([batch[i] for batch in loader])


# --- images


def test_images_need_no_text_tower(original, monkeypatch):
    monkeypatch.setitem(sys.modules, "clip", None)
    data = images(original)
    for split, n in {"train": 11, "val": 1, "test": 5}.items():
        assert data.n_examples(split) == n
        for batch in data.loader(split):
            assert batch.x.shape[1:] == data.shape == (3, 16, 16)
            assert batch.y.shape == (len(batch.x), data.n_outputs) == (len(batch.x), 0)


def test_targets_are_the_mean_features_of_the_captions(original, weights):
    data = images(
        original,
        is_caption_target=True,
        feature_dim=DIM,
        clip_weights=weights,
        auxiliary="target",
    )
    (batch, _) = data.loader("test")
    model, _ = clip.load(weights, device="cpu")
    for image, target in zip(TEST_IDS[:4], batch.y, strict=True):
        tokens = clip.tokenize([caption(image, k) for k in range(n_captions(image))])
        with torch.no_grad():
            expected = model.encode_text(tokens).mean(0)
        torch.testing.assert_close(target, expected, atol=2e-3, rtol=2e-3)
    assert torch.equal(batch.aux, batch.y)


@pytest.fixture
def server(original, monkeypatch):
    """COCO's, with small archives."""
    monkeypatch.setattr("utils.data.downloads.WAITS", ())
    with serving() as server:
        archives = {}
        for part, (path, _, _) in coco_captions.ARCHIVES.items():
            content = io.BytesIO()
            with zipfile.ZipFile(content, "w") as file:
                for member in sorted((original / "coco" / part).iterdir()):
                    file.write(member, f"{part}/{member.name}")
            content = server.files[f"/{path}"] = content.getvalue()
            archives[part] = path, hashlib.md5(content).hexdigest(), len(content)
        monkeypatch.setattr(coco_captions, "ARCHIVES", archives)
        monkeypatch.setattr(coco_captions, "SERVER", server.url)
        yield server


@pytest.mark.parametrize(
    "missing", ["", "annotations", "annotations/captions_val2017.json", "train2017"]
)
def test_what_is_missing_is_downloaded_once(copy, server, missing, capsys):
    path = copy / "coco" / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    for _ in range(2):
        data = images(copy)
        assert {split: data.n_examples(split) for split in SPLITS} == {
            "train": 11, "val": 1, "test": 5,
        }  # fmt: skip
        assert next(iter(data.loader("train"))).x.shape[1:] == data.shape
    parts = [missing.partition("/")[0]] if missing else ["annotations", "train2017", "val2017"]
    assert sorted(server.requests) == sorted(
        (f"/{coco_captions.ARCHIVES[p][0]}", None) for p in parts
    )
    assert not list((copy / "coco").glob("*.zip*"))
    assert capsys.readouterr().out.count("downloading") == len(parts)


def test_captions_alone_are_downloaded_for_captions(copy, server, weights):
    shutil.rmtree(copy / "coco")
    assert texts(copy, weights).n_examples("test") == 5
    assert [path for path, _ in server.requests] == ["/annotations/annotations_trainval2017.zip"]


def test_what_cannot_be_downloaded_is_named_with_its_place(copy, server):
    shutil.rmtree(copy / "coco" / "train2017")
    del server.files["/zips/train2017.zip"]
    with pytest.raises(DataError, match="404") as error:
        images(copy).setup()
    assert f"{server.url}/zips/train2017.zip" in str(error.value)
    assert str(copy / "coco" / "train2017.zip") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ['{"images": [{"id": 1', "[]", '{"images": [{"id": 1}]}'])
def test_a_damaged_file_of_captions_is_named(copy, content):
    (copy / "coco" / "annotations" / "captions_train2017.json").write_text(content)
    with pytest.raises(DataError, match="captions_train2017.json"):
        images(copy).setup()


def test_captions_are_ordered_by_id_and_the_terminal_stays_quiet(original, capsys):
    found = read_captions(original / "coco", "test")
    assert found.files == [f"{i:012d}.jpg" for i in TEST_IDS]
    assert found.counts.tolist() == [n_captions(i) for i in TEST_IDS]
    for i, start in zip(TEST_IDS, found.starts.tolist(), strict=True):
        assert found.texts[start : start + 5] == [caption(i, k) for k in range(5)]
    assert capsys.readouterr().out == ""


# --- captions as examples


@pytest.mark.parametrize("split", ["val", "test"])
def test_all_captions_are_drawn_alike_and_positives_are_others(original, weights, split):
    data = texts(original, weights, auxiliary="positive")
    table = data._captions["test" if split == "test" else "train"][1].float()
    spans = data.splits[split].inputs
    rows = len(spans)
    many = InMemory(spans.repeat(4000, 1), data.splits[split].targets.repeat(4000, 1))
    data.splits = data.splits | {split: many}
    batches = data.make_batches(
        split, batch_size=4000 * rows, is_shuffled=False, generator=torch.Generator().manual_seed(0)
    )
    (batch,) = batches
    for i in range(rows):
        start, count = spans[i].tolist()
        own = table[start : start + count]
        drawn = [
            (side[i::rows, None] == own).all(-1).float() for side in (batch.x, batch.aux)
        ]  # [4000, count] each; the sixth caption of an image is its first once more
        assert all(hits.any(-1).all() for hits in drawn)
        if count == 5:
            assert not (drawn[0] * drawn[1]).any()
            pairs = drawn[0].T @ drawn[1] / 4000
            assert ((pairs - (1 - torch.eye(5)) / 20).abs() < 0.015).all()
    spans = InMemory(torch.tensor([[2, 1], [3, 1]]), torch.zeros(2, DIM))
    data.splits = data.splits | {split: spans}
    (batch,) = data.loader(split)
    assert torch.equal(batch.x, batch.aux)  # an only caption is its own positive


def test_representative_and_target_are_the_mean_over_the_captions(original, weights):
    data = texts(original, weights, auxiliary="representative")
    found = read_captions(original / "coco", "test")
    features = caption_features(found.texts, weights=weights, dim=DIM, folder=original / "coco")
    (batch, rest) = data.loader("test")
    assert data.shape == (data.n_outputs,) == (DIM,)
    expected = torch.stack([f.float().mean(0) for f in features.split(found.counts.tolist())])
    torch.testing.assert_close(torch.cat([batch.aux, rest.aux]), expected)
    assert torch.equal(batch.y, batch.aux)


def test_the_auxiliary_variable_does_not_move_the_captions(original, weights):
    batches = {
        auxiliary: list(texts(original, weights, auxiliary=auxiliary).loader("train", epoch=2))
        for auxiliary in ("none", "input", "positive", "target")
    }
    for found in batches.values():
        for batch, other in zip(found, batches["none"], strict=True):
            assert torch.equal(batch.x, other.x) and torch.equal(batch.y, other.y)
    assert batches["none"][0].aux is None
    assert torch.equal(batches["input"][0].aux, batches["input"][0].x)
    assert torch.equal(batches["target"][0].aux, batches["target"][0].y)


def test_epochs_draw_other_captions_and_evaluation_the_same_ones(original, weights):
    data = texts(original, weights)
    first, second = (gather(data.loader("train", epoch=k, shuffle=False)) for k in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(gather(data.loader("val")), gather(texts(original, weights).loader("val")))


def test_captions_and_images_have_the_same_splits(original, weights):
    data, other = images(original), texts(original, weights)
    starts = read_captions(original / "coco", "train").starts
    for split in ("train", "val"):
        assert torch.equal(starts[data.splits[split].members], other.splits[split].inputs[:, 0])


# --- features


@pytest.fixture
def computed(monkeypatch):
    """What was computed, as opposed to read from disk."""
    calls = []
    compute = captions_module._compute
    monkeypatch.setattr(
        captions_module, "_compute", lambda *args: calls.append(args) or compute(*args)
    )
    return calls


def test_features_are_those_of_clip_whatever_the_batch(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(captions_module, "BATCH_SIZE", 3)
    captions = [f"{i} cats" for i in range(7)] + ["a very long caption " * 40]
    torch.manual_seed(3)
    found = caption_features(captions, weights=weights, dim=DIM, folder=tmp_path / "new")
    drawn = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(3))
    model, _ = clip.load(weights, device="cpu")
    with torch.no_grad():
        expected = model.encode_text(clip.tokenize(captions, truncate=True))
    torch.testing.assert_close(found.float(), expected, atol=2e-3, rtol=2e-3)
    assert found.dtype == torch.float16 and found.shape == (8, DIM)
    assert "features of 8 captions on cpu" in capsys.readouterr().out


def test_features_are_computed_once_for_the_same_captions_and_weights(
    tower, weights, tmp_path, computed
):
    settings = {"weights": weights, "dim": DIM, "folder": tmp_path}
    first, again = (caption_features(["a cat"], **settings) for _ in range(2))
    assert torch.equal(first, again) and len(computed) == 1
    caption_features(["a dog"], **settings)
    caption_features(["a", "cat"], **settings)
    assert len(computed) == 3
    changed = tmp_path / "changed.pt"
    state = {name: value.clone() for name, value in tower.state_dict().items()}
    state["text_projection"] *= 2
    torch.save(state, changed)
    other = caption_features(["a cat"], **settings | {"weights": str(changed)})
    assert len(computed) == 4
    torch.testing.assert_close(other, 2 * first, atol=2e-3, rtol=2e-3)


def test_features_of_other_dimensions_and_damaged_files_are_refused(weights, tmp_path):
    def ask(dim=DIM):
        return caption_features(["a cat"], weights=weights, dim=dim, folder=tmp_path)

    with pytest.raises(DataError, match=f"kwargs.feature_dim={DIM}"):
        ask(dim=9)
    assert not list(tmp_path.glob("clip_text*"))
    ask()
    with pytest.raises(DataError, match="kwargs.feature_dim"):
        ask(dim=9)
    (path,) = tmp_path.glob("*/features.npy")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match=f"{path.name}.*Delete the folder"):
        ask()


def test_missing_and_damaged_weights_are_named(tmp_path):
    ask = {"dim": DIM, "folder": tmp_path}
    with pytest.raises(DataError, match="clip_weights='ViT-B/33'.*neither.*ViT-B/32"):
        caption_features(["a cat"], weights="ViT-B/33", **ask)
    other = tmp_path / "other.pt"
    torch.save({"weight": torch.zeros(2)}, other)
    with pytest.raises(DataError, match="other.pt"):
        caption_features(["a cat"], weights=str(other), **ask)
    other.write_bytes(b"no weights")
    with pytest.raises(DataError, match="other.pt"):
        caption_features(["a cat"], weights=str(other), **ask)


def test_without_a_network_the_error_says_what_else_to_do(tmp_path, monkeypatch, capsys):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(DataError, match="338 MB.*no network.*kwargs.clip_weights"):
        caption_features(["a cat"], dim=DIM, folder=tmp_path)
    assert "338 MB" in capsys.readouterr().out
