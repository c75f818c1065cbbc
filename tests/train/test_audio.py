"""Whole runs on sounds: learned from, gone on with, judged, used."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import ownlatent
from ownlatent import Run, pretrain
from ownlatent.data.decode import fit_time
from ownlatent.data.frames import Frames, load_frames
from ownlatent.data.opening import open_source
from ownlatent.errors import OwnlatentError
from ownlatent.export.encoder import load_encoder
from ownlatent.sound.waveform import read_waveform

SMALL: dict[str, Any] = {
    **{"modality": "audio", "duration": 0.31, "batch_size": 12, "epochs": 4, "accelerator": "cpu", "precision": "32"},
    **{"backbone": "byol_a_512", "method.hidden": 32, "compile": "off"},
}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(sound_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return pretrain(sound_folder, val=str(sound_folder), out=tmp_path_factory.mktemp("audio") / "run", **SMALL)


def weights(run: Run) -> dict[str, torch.Tensor]:
    return run.encoder.state_dict()


def test_a_run_on_sounds_is_a_run_like_any_other(run: Run):
    assert run.results["finished"] and run.results["training"]["steps"] == 12
    assert run.recipe.views is not None and run.recipe.modality == "audio"
    subjects = {entry["subject"] for entry in run.results["evaluations"]}
    assert subjects == {"trained", "random", "bands"}
    for name in ("views.png", "curves.png", "embedding.png", "neighbours.png", "report.html", "encoder.json"):
        assert (run.folder / name).stat().st_size > 0
    assert "42 sounds" in (run.folder / "log.txt").read_text()


def test_the_stored_recipe_repeats_the_run(run: Run, sound_folder: Path, tmp_path: Path):
    again = pretrain(recipe=run.folder / "recipe.json", out=tmp_path / "again")
    for name, value in weights(run).items():
        assert torch.equal(value, weights(again)[name]), name


@pytest.mark.parametrize("loading", ["streaming", "resident"])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    loading: str, run: Run, sound_folder: Path, tmp_path: Path, stop_at: Any
):
    """From memory, and from files by a worker: views and what is mixed into them follow from the batch's number."""
    fields = {**SMALL, "loading": loading, "workers": 1}
    with stop_at(4), pytest.MonkeyPatch.context() as patch:
        patch.setattr("ownlatent.train.fit._every", lambda job: 1)
        stopped = pretrain(sound_folder, out=tmp_path / "run", **fields)
    assert 4 <= stopped.results["training"]["steps"] < 12 and not stopped.results["finished"]
    resumed = pretrain(out=tmp_path / "run", resume=True)
    for name, value in weights(run).items():
        assert torch.equal(value, weights(resumed)[name]), name


@pytest.mark.parametrize("method", ["simsiam", "simclr", "barlow_twins", "vicreg", "moco_v2", "dino", "supervised"])
def test_every_method_learns_from_sounds(method: str, sound_folder: Path, tmp_path: Path):
    """None of them knows what a sound is."""
    small = {"method.prototypes": 24, "method.queue": 24}
    known = ownlatent.methods.settings(method)
    fields = {
        key: value
        for key, value in {**SMALL, **small}.items()
        if key.removeprefix("method.") in known or key[:7] != "method."
    }
    done = pretrain(sound_folder, method=method, out=tmp_path / "run", **fields)
    assert done.results["finished"] and np.isfinite(done.metrics[-1]["loss"])
    features = done.encoder(torch.randn(2, 8000))
    assert features.shape == (2, 512) and torch.isfinite(features).all()


@pytest.mark.parametrize("backbone", ["resnet10_w16", "timm:resnet18", "timm:vit_tiny_patch16_224", "byol_a_v2"])
def test_backbones_of_images_take_spectrograms(backbone: str, sound_folder: Path, tmp_path: Path):
    fields = {**SMALL, "backbone": backbone, "epochs": 1, "duration": 0.31}
    done = pretrain(sound_folder, out=tmp_path / "run", **fields)
    loaded = load_encoder(done.folder)
    assert loaded.modality == "audio" and loaded.image_size == (64, 32)
    sounds = torch.randn(2, 4960)
    assert torch.allclose(loaded(sounds), done.encoder.eval()(sounds), atol=1e-5)


def test_an_encoder_takes_waveforms_and_their_spectrograms(run: Run, sound_folder: Path):
    encoder = run.encoder.eval()
    waveform = read_waveform((sound_folder / "low" / "00.wav").read_bytes())[:4960]
    source = open_source(sound_folder, modality="audio")
    picture = fit_time(source[14].image, 32, 0.0)
    assert source.title(14) == "low/00.wav"
    with torch.no_grad():
        heard, seen = encoder(torch.from_numpy(waveform)[None]), encoder(picture[None])
    # The spectrogram's last frames look beyond the stretch that the waveform ends with.
    assert torch.nn.functional.cosine_similarity(heard, seen).item() > 0.99
    with torch.no_grad():
        assert encoder(torch.randn(3, 16_000)).shape == (3, 512)  # of any length


def test_an_encoder_without_its_front_end_is_refused(run: Run, tmp_path: Path):
    """Spectrograms that were made otherwise would give wrong features in silence."""
    for name in ("encoder.json", "encoder.safetensors"):
        shutil.copy(run.folder / name, tmp_path / name)
    text = (tmp_path / "encoder.json").read_text()
    (tmp_path / "encoder.json").write_text(text.replace('"hop": 160', '"hop": 320'))
    with pytest.raises(OwnlatentError, match="made otherwise"):
        load_encoder(tmp_path)


def test_features_of_sounds_are_written_and_searched(run: Run, sound_folder: Path, tmp_path: Path):
    ownlatent.embed(run, sound_folder, out=tmp_path / "features.npz")
    query = sound_folder / "high" / "02.flac"
    (found,) = ownlatent.search(run, query, index=tmp_path / "features.npz", count=3, out=tmp_path / "found.png")
    assert found[0].path == "high/02.flac" and found[0].similarity == pytest.approx(1, abs=1e-4)
    assert (tmp_path / "found.png").stat().st_size > 0
    with pytest.raises(OwnlatentError, match="not a sound"):
        ownlatent.search(run, run.folder / "views.png", index=tmp_path / "features.npz")


def test_a_run_is_evaluated_by_every_protocol(run: Run, sound_folder: Path, tmp_path: Path):
    parts = {}
    for part, numbers in {"train": range(10), "test": range(10, 14)}.items():
        for name in ("high", "low", "middle"):
            for number in numbers:
                (path,) = (sound_folder / name).glob(f"{number:02d}.*")
                target = tmp_path / part / name / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
        parts[part] = str(tmp_path / part)
    fields = {"protocols": "knn,linear,low-shot,sgd,finetune", "k": "3", "labels": "2", "draws": 2, "sgd_epochs": 3}
    minutes = {"supervised_minutes": 0.02, "finetune_minutes": 0.02}
    entries = ownlatent.evaluate(run.folder, **parts, **fields, **minutes)
    done = {(entry["protocol"], entry["subject"]) for entry in entries}
    assert {("linear", "supervised"), ("finetune", "trained"), ("sgd", "bands"), ("knn", "random")} <= done


def test_sounds_that_cannot_be_read_are_skipped_counted_and_listed(sound_folder: Path, tmp_path: Path):
    data = tmp_path / "data"
    shutil.copytree(sound_folder, data)
    (data / "low" / "empty.wav").write_bytes(b"")
    (data / "low" / "cover.jpg").write_bytes(b"\xff\xd8\xff not a sound, and not asked for")
    (data / "low" / "damaged.mp3").write_bytes(b"ID3\x03" + bytes(200))
    soundfile.write(data / "low" / "nothing.wav", np.zeros(0), 16_000)
    done = pretrain(data, out=tmp_path / "run", **{**SMALL, "epochs": 1})
    log = (done.folder / "log.txt").read_text()
    assert "skipped 3 of 45 files that cannot be read" in log
    for name in ("low/empty.wav: the file is empty", "low/damaged.mp3", "low/nothing.wav: a sound without samples"):
        assert name in log
    assert "cover.jpg" not in log


def test_short_and_long_sounds_keep_their_length_in_memory(sound_folder: Path):
    source = open_source(sound_folder, modality="audio")
    loaded = load_frames(source, most=10**9)
    assert isinstance(loaded, Frames) and len(loaded) == 42
    for index in (0, 17, 41):
        assert torch.equal(loaded[index].image.int(), source[index].image.int())
        assert loaded.title(index) == source.title(index)
    assert load_frames(source, most=1000) is None


@pytest.mark.parametrize("length", [3, 32, 50])
def test_a_stretch_is_cut_or_padded_with_silence(length: int):
    picture = torch.arange(1, length + 1, dtype=torch.int32).expand(1, 64, length).to(torch.uint16)
    for place in (0.0, 0.5, 1.0):
        cut = fit_time(picture, 32, place)[0, 0].int()
        kept = cut[cut > 0]
        assert len(cut) == 32 and len(kept) == min(length, 32)
        assert torch.equal(kept.diff(), torch.ones(len(kept) - 1, dtype=torch.int32))
        if length > 32:
            assert kept[0] == 1 + min(18, int(place * 19))
        elif length < 32:
            assert int((cut == 0).nonzero()[0]) == 0 and cut[(32 - length) // 2] == 1


def test_programs_give_waveforms_as_torchaudio_and_hugging_face_do(tmp_path: Path):
    rng = np.random.default_rng(0)
    arrays = rng.normal(0, 0.1, (24, 6000)).astype(np.float32)
    torchaudio = [(torch.from_numpy(a)[None], 8000, "ab"[n % 2], n) for n, a in enumerate(arrays)]
    hugging = [
        {"audio": {"array": a.astype(np.float64), "sampling_rate": 8000}, "label": n % 2} for n, a in enumerate(arrays)
    ]
    first = open_source(torchaudio_like(torchaudio), modality="audio", labelled=True)
    second = open_source(torchaudio_like(hugging), modality="audio", labelled=True)
    assert first.classes == ["a", "b"] and [first[n].label for n in range(4)] == [0, 1, 0, 1]
    assert torch.equal(first[3].image.int(), second[3].image.int())
    plain = open_source(arrays, modality="audio")
    assert plain[0].image.shape == (1, 64, 38) and first[0].image.shape == (1, 64, 76)
    done = pretrain(arrays, out=tmp_path / "run", **{**SMALL, "epochs": 1})
    assert done.recipe.data == "object:ndarray"


class torchaudio_like:
    def __init__(self, items: list[Any]):
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 32}, "--image-size has no meaning with --modality audio"),
        ({"duration": 0.01}, "--duration must be from 0.08 to 60 seconds"),
        ({"views": "byol"}, "there is no table of views of sounds 'byol'"),
        ({"views.mixup": 2}, "mixup is a share from 0 to 1"),
        ({"modality": "smell"}, "--modality is one of image, audio"),
    ],
)
def test_what_does_not_go_with_sounds_is_refused(
    fields: dict[str, Any], message: str, sound_folder: Path, tmp_path: Path
):
    with pytest.raises(OwnlatentError, match=message):
        pretrain(sound_folder, out=tmp_path / "run", **{**SMALL, **fields})
    assert not (tmp_path / "run").exists()


def test_the_other_modality_is_named(sound_folder: Path, image_folder: Path, tmp_path: Path):
    with pytest.raises(OwnlatentError, match="no image in"):
        pretrain(sound_folder, out=tmp_path / "run")
    with pytest.raises(OwnlatentError, match="no sound in"):
        pretrain(image_folder, modality="audio", out=tmp_path / "run")
    with pytest.raises(OwnlatentError, match="holds sounds, not images: give --modality audio"):
        pretrain("sounds:train", out=tmp_path / "run")


def test_training_with_labels_sees_stretches_from_everywhere():
    """Also of made sounds, which are all of one length; a spectrogram that is too short is no view."""
    from ownlatent.augment.recipes import SoundView
    from ownlatent.augment.sound_views import SoundViews
    from ownlatent.data.loader import generator
    from ownlatent.train.classify import _open

    opened = _open(open_source("sounds:test", modality="audio"), list(range(8)), 1)
    assert isinstance(opened, Frames) and len(opened) == 8
    ramp = torch.arange(76, dtype=torch.int32).expand(40, 1, 64, 76).to(torch.uint16)
    view = SoundView(mixup=0.0, crop_height=(1.0, 1.0), crop_width=(1.0, 1.0), standardise=False)
    (made,) = SoundViews([view], (64, 32), (0.0,), (1.0,), peak=1.0).of_images(ramp, generator(0))
    firsts = made[:, 0, 0, 0]
    assert made.shape == (40, 1, 64, 32) and firsts.min() < 5 and firsts.max() > 39
    with pytest.raises(ValueError, match="too short"):
        SoundViews([view], (64, 96), (0.0,), (1.0,)).of_images(ramp, generator(0))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([(np.zeros(4000, np.float32), float("nan"))] * 9, "no rate of a sound"),
        ([np.zeros((4000, 2), np.float32)] * 9, "give \\(channels, samples\\)"),
        ([{"sound": 1}] * 9, "no `array`"),
        (["a", 1], "no sound"),
        ([(torch.zeros(4000, dtype=torch.bfloat16), "fast")] * 9, "no sound"),
    ],
)
def test_items_that_are_no_sounds_are_one_sentence(items: list[Any], message: str):
    with pytest.raises(OwnlatentError, match=message):
        open_source(items, modality="audio")


def test_lists_of_waveforms_with_rates_and_labels_are_taken():
    rng = np.random.default_rng(0)
    plain = open_source([rng.normal(size=4000).tolist(), rng.normal(size=800).tolist()], modality="audio")
    assert [plain[n].image.shape[2] for n in range(2)] == [26, 6]
    pairs = [(torch.from_numpy(rng.normal(size=4000)).bfloat16(), 8000, "ab"[n % 2]) for n in range(4)]
    labelled = open_source(pairs, modality="audio", labelled=True)
    assert labelled.classes == ["a", "b"] and labelled[0].image.shape == (1, 64, 51)


def test_the_users_data_set_is_asked_by_one_thread_at_a_time():
    from threading import Lock

    class Shared:
        lock = Lock()

        def __len__(self) -> int:
            return 64

        def __getitem__(self, index: int) -> Any:
            assert self.lock.acquire(blocking=False), "asked by two threads at once"
            try:
                return np.random.default_rng(index).normal(size=3000).astype(np.float32)
            finally:
                self.lock.release()

    loaded = load_frames(open_source(Shared(), modality="audio"), most=10**9)
    assert isinstance(loaded, Frames) and not loaded.skipped and len(loaded) == 64


def test_the_baseline_of_sounds_is_left_out_by_its_name(run: Run, sound_folder: Path, tmp_path: Path):
    copied = shutil.copytree(run.folder, tmp_path / "copied")
    entries = ownlatent.evaluate(copied, test=sound_folder, without="bands,supervised")
    assert {entry["subject"] for entry in entries} == {"trained", "random"}


def test_an_encoder_refuses_what_is_no_waveform(run: Run):
    for wrong in (torch.zeros(2, 8000, dtype=torch.int16), torch.zeros(2, 1, 8000)):
        with pytest.raises(OwnlatentError, match="are no waveforms"):
            run.encoder(wrong)


def test_the_order_of_options_does_not_matter(sound_folder: Path):
    from ownlatent.train.recipe import Recipe, edit

    assert edit(Recipe(), {"views": "byol_a", "modality": "audio"}) == edit(
        Recipe(), {"modality": "audio", "views": "byol_a"}
    )
