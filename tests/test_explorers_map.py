"""The map: what it counts, what its records hold, and the files that lie beside the page."""

import base64
import io
import json
import re
from dataclasses import replace

import pytest
import soundfile
import torch
from PIL import Image
from test_explorers import javascript, needs_node
from tiny import write_corpus

from acl_lib import explorers, projection
from acl_lib.datasets import synthetic
from acl_lib.explorers import build, live, maps, media
from acl_lib.listen import mp3

RECORDS = sorted((media.BOOK / "results" / "explorers").glob("map_*.json"))


@needs_node
def test_the_share_of_neighbours_of_a_class_is_that_of_torch():
    draw = torch.Generator().manual_seed(0)
    h, y = torch.rand(40, 8, generator=draw), torch.randint(4, (40,), generator=draw)
    counts = torch.rand(40, generator=draw) < 0.6
    cosine, near = maps.near(h)
    ask = f"{near.tolist()}, {y.tolist()}, {counts.int().tolist()}"
    got = javascript(f"return map.neighbourShare({ask})")
    wanted = (y[near] == y[:, None]).double().mean(1)[counts].mean()
    assert got == pytest.approx(wanted.item(), abs=1e-6)
    u = torch.nn.functional.normalize(h.double(), dim=1)  # the neighbours by a loop
    for i in range(40):
        others = sorted((k for k in range(40) if k != i), key=lambda k: -(u[i] @ u[k]))
        assert near[i].tolist() == others[:5]
        assert cosine[i, 0] == pytest.approx((u[i] @ u[others[0]]).item())


@needs_node
def test_arrow_keys_go_to_the_nearest_point_that_counts():
    points = [[0, 0], [10, 1], [30, 0], [1, 20], [-9, 0]]
    all_of, some = [1] * 5, [1, 0, 1, 1, 1]
    asks = [
        (0, "ArrowRight", all_of),
        (0, "ArrowRight", some),  # over one that is hidden
        (0, "ArrowDown", all_of),
        (0, "ArrowLeft", all_of),
        (2, "ArrowRight", all_of),  # nothing there
    ]
    calls = ",".join(
        f"shared.toward({points}, {at}, shared.WAYS.{key}, {counts})" for at, key, counts in asks
    )
    assert javascript(f"return [{calls}]") == [1, 2, 3, 4, 2]
    found = f"[map.under({points}, 9, 0, 14, {all_of}), map.under({points}, 50, 50, 14, {all_of})]"
    assert javascript(f"return {found}") == [1, -1]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_holds_maps_and_neighbours_and_no_sound(path):
    text = path.read_text(encoding="utf-8")
    record = json.loads(text)
    n = len(record["clips"])
    assert len(text) < 500_000 and "NaN" not in text
    assert n == {"synthetic": 100, "esc10": 400}[record["corpus"]["name"]]
    assert sum(record["unheard"]) == {"synthetic": 100, "esc10": 80}[record["corpus"]["name"]]
    assert list(record["networks"]) == list(maps.NETWORKS)
    assert len(record["labels"]) == len(record["sources"]) == n
    assert set(record["labels"]) == set(range(len(record["classes"])))
    for name, network in record["networks"].items():
        for kind in ("PCA", "UMAP"):
            xy = torch.tensor(network["maps"][kind])
            assert xy.shape == (n, 2) and xy.isfinite().all()
            assert xy.square().sum(1).mean() == pytest.approx(1, abs=0.01)  # `projection.align`
        near, cosines = torch.tensor(network["neighbours"]), torch.tensor(network["cosines"])
        assert near.shape == cosines.shape == (n, 5)
        assert (near != torch.arange(n)[:, None]).all() and 0 <= near.min() and near.max() < n
        assert (cosines.diff(dim=1) <= 0).all() and cosines.max() <= 1
        assert network["recipe"]["name"] == maps.NETWORKS[name]
        low, high = network["probe"]["interval"]
        assert 0 <= low <= network["probe"]["accuracy"] <= high <= 1
        assert network["probe"]["n"] == record["tested"]


@pytest.fixture
def tiny_map(tmp_path, monkeypatch):
    """A tiny corpus that is opened as the synthetic one, with a record of its map."""
    corpus = write_corpus(tmp_path / "tiny")
    monkeypatch.setattr(media, "BOOK", tmp_path / "book")
    monkeypatch.setattr(media, "open_corpus", lambda name, **_: corpus)
    monkeypatch.setattr(maps, "open_recipe_corpus", lambda *a, **k: corpus)
    monkeypatch.setattr(projection, "umap", lambda h, seed: projection.pca(h))
    small = {"width": 8, "epochs": 1, "batch": 4, "penalties": (0.1,)}
    record = maps.map_record("synthetic", "quick", **small)
    build.write(media.record_path("map", "synthetic"), record)
    return corpus, record


def test_the_files_beside_the_page_are_made_once(tiny_map, tmp_path):
    corpus, _ = tiny_map
    folder = tmp_path / "clips"
    assert media.make_media(corpus, [0, 1, 5], folder) == 6
    assert sorted(f.name for f in folder.iterdir()) == [
        f"{name}.{kind}" for name in ("00", "01", "05") for kind in ("mp3", "webp")
    ]
    sound, rate = soundfile.read(folder / "05.mp3")
    assert rate == 22_050 and 0.9 < len(sound) / rate < 1.2  # 1 s, and what the coder adds
    with Image.open(folder / "05.webp") as picture:
        assert picture.size == (50, 96)
    told = media.addresses(corpus.clips[5])  # the same for a page with a kernel
    for kind, address in {"mp3": told["sound"], "webp": told["picture"]}.items():
        start, _, data = address.partition(";base64,")
        assert start == {"mp3": "data:audio/mpeg", "webp": "data:image/webp"}[kind]
        assert base64.b64decode(data) == (folder / f"05.{kind}").read_bytes()
    assert media.make_media(corpus, [0, 1, 5], folder) == 0
    (folder / "01.mp3").unlink()
    assert media.make_media(corpus, [0, 1, 5], folder) == 1


def test_a_sound_is_cut_after_five_seconds(tmp_path):
    corpus = write_corpus(tmp_path)
    soundfile.write(corpus.clips[0].path, 0.1 * torch.randn(8 * 22_050).numpy(), 22_050)
    sound, _ = soundfile.read(io.BytesIO(media.sound(corpus.clips[0])))
    assert 5 <= len(sound) / 22_050 < 5.2
    assert Image.open(io.BytesIO(media.log_mel_picture(corpus.clips[0]))).size == (250, 96)
    with pytest.raises(ValueError, match="MP3 has no 22000 Hz"):
        mp3(torch.ones(9), 22_000)


def test_a_record_of_a_corpus_with_folds_has_all_clips_and_leaves_out_the_first_fold(tiny_map):
    corpus, record = tiny_map
    assert record["clips"] == list(range(12)) and record["split"] == "fold 1"
    assert record["unheard"] == [int(clip.fold == 1) for clip in corpus.clips]
    recipes = [record["networks"][name]["recipe"] for name in maps.NETWORKS]
    assert [r["pretrain_on"] for r in recipes] == ["train"] * 4
    assert [r["loss"]["alpha"] for r in recipes] == [1, 1, 0.3, 1]


def test_the_page_names_the_files_of_its_corpus(tiny_map, monkeypatch):
    corpus, _ = tiny_map
    monkeypatch.setenv("ACL_PUBLISH", "1")
    html = explorers.sound_map("synthetic").data
    assert "import " not in html.split("<script")[1] and "\nexport" not in html
    assert not re.search(r'(src|href)="(?!data:)', html)
    assert len(re.search(r'<img alt="([^"]+)"', html)[1]) > 20
    state = json.loads(re.search(r"pageModel\((\{.*\})\), el", html)[1])
    assert state["media"] == f"../_static/vendor/clips/tiny-{corpus.fingerprint()[:8]}"
    assert state["names"] == [f"{i:02d}" for i in range(12)]
    assert state["unheardClips"][state["names"].index(state["clip"])] == 1
    assert explorers.sound_map("synthetic").data.split("acl-")[0] == html.split("acl-")[0]


def test_a_kernel_answers_with_sound_and_picture(tiny_map, monkeypatch):
    monkeypatch.delenv("ACL_PUBLISH", raising=False)
    widget, sent = explorers.sound_map("synthetic"), []
    monkeypatch.setattr(type(widget), "send", lambda self, message: sent.append(message))
    widget._msg_callbacks(widget, {"clip": "05"}, [])
    widget._msg_callbacks(widget, {"clip": "nothing"}, [])
    (message,) = sent
    assert message["clip"] == "05"
    assert message["sound"].startswith("data:audio/mpeg;base64,")
    assert message["picture"].startswith("data:image/webp;base64,")


def test_a_map_of_other_sounds_is_refused(tiny_map, monkeypatch):
    corpus, _ = tiny_map
    fewer = replace(corpus, clips=corpus.clips[1:])
    monkeypatch.setattr(media, "open_corpus", lambda name, **_: fewer)
    with pytest.raises(ValueError, match="acl explorers build --corpus synthetic"):
        explorers.sound_map("synthetic")
    with pytest.raises(FileNotFoundError, match="acl explorers build --corpus esc10"):
        media.open_mapped("esc10")


def test_real_sounds_are_shown_where_they_and_their_map_are(tiny_map, monkeypatch, tmp_path):
    def absent(name, **_):
        raise media.CorpusNotFoundError(name)

    assert media.best_corpus() == "synthetic"  # no map of ESC-10
    build.write(media.record_path("map", "esc10"), {})
    assert media.best_corpus() == "esc10"
    monkeypatch.setattr(media, "open_corpus", absent)
    assert media.best_corpus() == "synthetic"


def test_a_build_leaves_no_clips_of_another_corpus(tiny_map, tmp_path):
    corpus, record = tiny_map
    old = tmp_path / "vendor" / "clips" / "esc10-0123abcd"
    old.mkdir(parents=True)
    assert media.make_shown(tmp_path / "vendor") == "synthetic"
    (folder,) = old.parent.iterdir()
    assert folder.name == media.media_folder(corpus)
    assert len(list(folder.iterdir())) == 2 * len(record["clips"])


def test_authors_are_named_as_the_corpus_names_them(tmp_path):
    corpus = write_corpus(tmp_path)
    clip = replace(corpus.clips[0], licence="CC0")
    corpus = replace(corpus, clips=(clip, *corpus.clips[1:]))
    assert media.credits(corpus, [0]) == ["CC0"]
    (tmp_path / "ATTRIBUTION.md").write_text(
        "- **[00.wav](http://a.b/00.wav)**:  clip derived from [a bark.wav](http://c.d/people/ann/"
        "sounds/12/) by *ann* ([CC0](http://creativecommons.org/publicdomain/zero/1.0/))\n"
    )
    assert media.credits(corpus, [0, 1]) == ["“a bark.wav” by ann, Freesound 12, CC0", ""]


def test_build_writes_both_records(monkeypatch, tmp_path):
    monkeypatch.setattr(media, "BOOK", tmp_path)
    monkeypatch.setattr(build, "map_record", lambda corpus, profile: {"map": corpus})
    monkeypatch.setattr(live, "training_record", lambda corpus, profile: {"training": profile})
    one, other = build.build("esc10", "laptop")
    assert json.loads(one.read_text()) == {"map": "esc10"} and one.name == "map_esc10.json"
    assert json.loads(other.read_text()) == {"training": "laptop"}
    assert other == tmp_path / "results" / "explorers" / "training_esc10.json"
    with pytest.raises(ValueError):
        build.write(one, {"a": float("nan")})


def test_a_corpus_with_a_test_split_shows_a_few_clips_of_each_class(tmp_path):
    corpus = synthetic.SyntheticEvents.open(tmp_path, clips=60, progress=False)
    test = torch.tensor([i for i, clip in enumerate(corpus.clips) if clip.split == "test"])
    shown = maps._first(corpus, test)
    assert corpus.labels[shown].tolist() == list(range(20))
    assert torch.isin(shown, test).all()
