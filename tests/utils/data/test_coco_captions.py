"""COCO's images and captions, in a small folder with the original layout."""

import hashlib
import io
import shutil
import sys
import zipfile
from functools import partial

import clip
import pytest
import torch
from clip.model import CLIP
from helpers.batches import gather
from helpers.file_server import serving

from utils.data import coco_captions
from utils.data.coco_captions import CocoCaptionsDataModule, caption_features, read_captions
from utils.data.examples import InMemory
from utils.data.module import SPLITS, DataError
from utils.data.sources import coco

pytestmark = [  # warnings from reading official CLIP files, and from making them
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]

TEST_IDS = range(12, 17)
DIM = 8


def caption(image, k):
    return f"{'abcdé'[k % 5]} {image} val2017"


def n_captions(image):
    return 5 if image % 3 else 6


@pytest.fixture
def original(make, tmp_path):
    """Images and captions whose ids are unsorted."""
    make(coco.coco)
    return tmp_path


@pytest.fixture
def images(make):
    return partial(make, coco.coco, val_fraction=0.1, eval_batch_size=4)


@pytest.fixture
def texts(original, weights):
    settings = {"feature_dim": DIM, "batch_size": 5, "eval_batch_size": 4}
    return partial(CocoCaptionsDataModule, data_dir=str(original), clip_weights=weights, **settings)


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


# --- images


def test_images_need_no_text_tower(images, monkeypatch):
    monkeypatch.setitem(sys.modules, "clip", None)
    assert [images().n_examples(split) for split in SPLITS] == [11, 1, 5]


def test_targets_are_the_means_over_the_captions(images, texts, weights):
    settings = {"feature_dim": DIM, "clip_weights": weights, "auxiliary": "target"}
    batch = gather(images(is_caption_target=True, **settings).loader("test"))
    assert torch.equal(batch.aux, batch.y)
    assert torch.equal(batch.y, gather(texts(auxiliary="representative").loader("test")).aux)


@pytest.fixture
def server(original, monkeypatch):
    """A server with small COCO archives."""
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


@pytest.mark.parametrize("missing", ["", "annotations/captions_val2017.json", "train2017"])
def test_missing_parts_are_downloaded_once(images, original, server, missing):
    path = original / "coco" / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    for _ in range(2):
        data = images()
        assert [data.n_examples(split) for split in SPLITS] == [11, 1, 5]
        assert next(iter(data.loader("train"))).x.shape[1:] == data.shape
    parts = [missing.partition("/")[0]] if missing else ["annotations", "train2017", "val2017"]
    assert sorted(server.requests) == sorted(
        (f"/{coco_captions.ARCHIVES[part][0]}", None) for part in parts
    )
    assert not list((original / "coco").glob("*.zip*"))


def test_captions_need_no_images(original, server, texts):
    shutil.rmtree(original / "coco")
    assert texts().n_examples("test") == 5
    assert [path for path, _ in server.requests] == ["/annotations/annotations_trainval2017.zip"]


@pytest.mark.parametrize("content", ['{"images": [{"id": 1', '{"images": [{"id": 1}]}', "{}"])
def test_a_damaged_file_of_captions_is_named(images, original, content):
    (original / "coco" / "annotations" / "captions_train2017.json").write_text(content)
    with pytest.raises(DataError, match="captions_train2017.json"):
        images().setup()


def test_captions_are_ordered_by_id_and_split_as_the_images(original, images, texts):
    found = read_captions(original / "coco", "test")
    assert found.files == [f"{i:012d}.jpg" for i in TEST_IDS]
    assert found.counts.tolist() == [n_captions(i) for i in TEST_IDS]
    assert found.texts == [caption(i, k) for i in TEST_IDS for k in range(n_captions(i))]
    data, other = images(), texts()
    counts = read_captions(original / "coco", "train").counts
    starts = counts.cumsum(0) - counts
    for split in ("train", "val"):
        assert torch.equal(starts[data.splits[split].members], other.splits[split].inputs[:, 0])


# --- captions as examples


def test_captions_are_drawn_uniformly_and_positives_are_others(original, texts, weights):
    data, split = texts(auxiliary="positive"), "test"
    found = read_captions(original / "coco", split)
    table = caption_features(found.texts, weights=weights, dim=DIM, folder=original / "coco")
    table, spans = table.float(), data.splits[split].inputs
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
        ]  # [4000, count] each; an image's sixth caption repeats its first
        assert all(hits.any(-1).all() for hits in drawn)
        if count == 5:
            assert not (drawn[0] * drawn[1]).any()
            pairs = drawn[0].T @ drawn[1] / 4000
            assert ((pairs - (1 - torch.eye(5)) / 20).abs() < 0.015).all()
    spans = InMemory(torch.tensor([[2, 1], [3, 1]]), torch.zeros(2, DIM))
    data.splits = data.splits | {split: spans}
    (batch,) = data.loader(split)
    assert torch.equal(batch.x, batch.aux)  # a single caption is its own positive


def test_representative_and_target_are_the_mean_over_the_captions(original, texts, weights):
    data = texts(auxiliary="representative")
    found = read_captions(original / "coco", "test")
    features = caption_features(found.texts, weights=weights, dim=DIM, folder=original / "coco")
    batch = gather(data.loader("test"))
    assert data.shape == (data.n_outputs,) == (DIM,)
    expected = torch.stack([f.float().mean(0) for f in features.split(found.counts.tolist())])
    torch.testing.assert_close(batch.aux, expected)
    assert torch.equal(batch.y, batch.aux)


# --- features


def test_features_agree_with_clip_for_any_batch_size(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(coco_captions, "BATCH_SIZE", 3)
    captions = [f"{i} cats" for i in range(7)] + ["a very long caption " * 40]
    state = torch.get_rng_state()
    found = caption_features(captions, weights=weights, dim=DIM, folder=tmp_path / "new")
    assert torch.equal(torch.get_rng_state(), state)
    model, _ = clip.load(weights, device="cpu")
    with torch.no_grad():
        expected = model.encode_text(clip.tokenize(captions, truncate=True))
    torch.testing.assert_close(found.float(), expected, atol=2e-3, rtol=2e-3)
    assert found.dtype == torch.float16 and found.shape == (8, DIM)


def test_features_are_computed_once_for_the_same_captions_and_weights(tower, weights, tmp_path):
    def ask(captions, weights=weights, dim=DIM):
        features = caption_features(captions, weights=weights, dim=dim, folder=tmp_path)
        return features, len(list(tmp_path.glob("clip_text*")))

    with pytest.raises(DataError, match=f"kwargs.feature_dim={DIM}"):
        ask(["a cat"], dim=9)
    changed = tmp_path / "changed.pt"
    state = {name: value.clone() for name, value in tower.state_dict().items()}
    state["text_projection"] *= 2
    torch.save(state, changed)
    (first, n), (again, n_again) = ask(["a cat"]), ask(["a cat"])
    assert torch.equal(first, again) and n == n_again == 1
    with pytest.raises(DataError, match="kwargs.feature_dim"):
        ask(["a cat"], dim=9)
    (path,) = tmp_path.glob("*/features.npy")
    assert ask(["a dog"])[1] == 2 and ask(["a", "cat"])[1] == 3
    other, n = ask(["a cat"], str(changed))
    assert n == 4
    torch.testing.assert_close(other, 2 * first, atol=2e-3, rtol=2e-3)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match=path.name):
        ask(["a cat"])


def test_unknown_weights_are_named(tmp_path):
    with pytest.raises(DataError, match="clip_weights='ViT-B/33'.*ViT-B/32"):
        caption_features(["a cat"], weights="ViT-B/33", dim=DIM, folder=tmp_path)
