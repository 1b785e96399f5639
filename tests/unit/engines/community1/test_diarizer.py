"""The community-1 diarizer: the networks are found and run unchanged, turns are sane on any input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from backend.domain.transcript import Diarization, SpeakerCount
from backend.domain.turns import fill_pauses, hysteresis, one_at_a_time, to_turns
from backend.engines.audio.samples import Audio, MediaInfo
from backend.engines.community1.diarizer import Community1Diarizer
from backend.engines.community1.embedding import VoiceNetwork, pool
from backend.engines.community1.masks import local_speakers_of
from backend.engines.community1.model_files import EMBEDDING, SEGMENTATION, find_model, open_session
from backend.engines.community1.observations import Glimpses
from backend.engines.community1.windows import Tuning, window_starts
from backend.errors import EngineUnavailable
from tests.support.media import decode, silence, tone, write

ROOT = Path(__file__).resolve().parents[4]
MEETING = ROOT / "samples" / "meeting.flac"
EVAL = Path(os.environ.get("APERTA_EVAL", ROOT.parent / "shared" / "eval"))
UNKNOWN = SpeakerCount()


@pytest.fixture(scope="module")
def diarizer() -> Community1Diarizer:
    pytest.importorskip("moonshine_voice")
    return Community1Diarizer(threads=2)


@pytest.fixture(scope="module")
def meeting():
    with decode(MEETING, max_s=600) as audio:
        yield audio


@pytest.fixture
def as_audio():
    """A function: samples as the engine gets them, without the mending that decoding does."""
    with ExitStack() as files:

        def open_audio(samples: np.ndarray) -> Audio:
            file = files.enter_context(tempfile.TemporaryFile())
            file.write(samples.astype(np.float32).tobytes())
            file.flush()
            return Audio(file, len(samples), MediaInfo("wav", "pcm_f32le", 16_000, 1, None))

        yield open_audio


@pytest.fixture(scope="module")
def twelve_voices(meeting):
    """The three voices of the sample, each spoken at four speeds, which moves pitch and timbre: a minute in turns."""
    spoken = [meeting.seconds(start, end) for start, end, _ in reference(MEETING)[:3]]
    pause = silence(0.4)[0]
    pieces = [
        np.append(np.interp(np.arange(0, len(turn) - 1, speed), np.arange(len(turn)), turn), pause)
        for speed in (0.75, 0.9, 1.1, 1.3)
        for turn in spoken
    ]
    with tempfile.TemporaryFile() as file:
        samples = np.concatenate(pieces).astype(np.float32)
        file.write(samples.tobytes())
        file.flush()
        yield Audio(file, len(samples), MediaInfo("wav", "pcm_f32le", 16_000, 1, None))


def run(diarizer: Community1Diarizer, audio: Audio, speakers: SpeakerCount = UNKNOWN) -> Diarization:
    result = diarizer.diarize(audio, speakers, lambda done: None)
    assert_sane(result, audio.duration_s)
    return result


def assert_sane(result: Diarization, duration_s: float) -> None:
    for turns in (result.turns, result.exclusive):
        assert list(turns) == sorted(turns, key=lambda turn: turn.start_s)
        assert all(0 <= turn.start_s < turn.end_s <= duration_s + 0.001 for turn in turns)
    for before, after in zip(result.exclusive, result.exclusive[1:], strict=False):
        assert before.end_s <= after.start_s
    assert names(result.exclusive) <= names(result.turns)


def names(turns) -> set[str]:
    return {turn.speaker for turn in turns}


def reference(path: Path) -> list[tuple[float, float, str]]:
    fields = [line.split() for line in path.with_suffix(".rttm").read_text().splitlines()]
    return [(float(f[3]), float(f[3]) + float(f[4]), f[7]) for f in fields]


# The networks


def test_missing_models_say_what_to_do(tmp_path):
    with pytest.raises(EngineUnavailable, match=r"segmentation\.ort is missing.* Install moonshine-voice"):
        Community1Diarizer(models_dir=tmp_path)


@pytest.mark.parametrize("content", [b"", b"\0" * SEGMENTATION.n_bytes])
def test_damaged_models_are_refused(tmp_path, content):
    (tmp_path / "segmentation.ort").write_bytes(content)
    with pytest.raises(EngineUnavailable, match=r"damaged or another version.*Install"):
        find_model(SEGMENTATION, tmp_path)


def test_directory_and_wheel_hold_the_same_models(tmp_path, diarizer):
    for model in (SEGMENTATION, EMBEDDING):
        (tmp_path / model.name).write_bytes(find_model(model))
        assert find_model(model, tmp_path) == find_model(model)


def test_no_inference_library_is_loaded_by_the_import():
    code = (
        "import sys, backend.engines.community1.diarizer, backend.engines.community1.model_files;"
        "print([m for m in ('onnxruntime', 'kaldi_native_fbank', 'moonshine_voice') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_segmentation_agrees_with_the_network_as_saved(diarizer, meeting):
    import onnxruntime

    saved = onnxruntime.InferenceSession(bytes(find_model(SEGMENTATION)), providers=["CPUExecutionProvider"])
    window = {"waveforms": meeting.read(0, 160_000)[None, None]}
    decided = saved.run(None, window)[0]
    probable = np.exp(open_session(SEGMENTATION, find_model(SEGMENTATION), threads=1).run(None, window)[0])
    classes = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]])
    assert probable.shape == (1, 589, 7)
    assert np.allclose(probable.sum(axis=-1), 1, atol=1e-4)
    assert np.array_equal(classes[probable.argmax(axis=-1)], decided)


def test_pooling_the_shared_trunk_equals_the_whole_embedding_network():
    import onnxruntime

    random = np.random.default_rng(0)
    features = random.normal(size=(1, 1000, 80)).astype(np.float32)
    mask = (random.random(125) > 0.4).astype(np.float32)
    saved = onnxruntime.InferenceSession(bytes(find_model(EMBEDDING)), providers=["CPUExecutionProvider"])
    expected = saved.run(None, {"fbank": features, "weights": np.repeat(mask, 8)[None]})[0][0]
    network = VoiceNetwork(None, threads=2)
    frames = np.ascontiguousarray(network.trunk.run(None, {"fbank": features})[0][0].T)
    assert np.allclose(network.project(pool(frames, mask)), expected, atol=1e-3)


# Speech


def test_finds_who_speaks_in_the_sample(diarizer, meeting):
    true = reference(MEETING)
    result = diarizer.diarize_with_voices(meeting, UNKNOWN, lambda done: None)
    assert_sane(result.diarization, meeting.duration_s)
    assert len(names(result.diarization.turns)) == len({speaker for _, _, speaker in true})
    owner = {}
    for start, end, speaker in true:
        middle = (start + end) / 2
        heard = {turn.speaker for turn in result.diarization.turns if turn.start_s < middle < turn.end_s}
        assert heard, f"nobody at {middle} s"
        owner.setdefault(speaker, set()).add(min(heard))
    assert all(len(labels) == 1 for labels in owner.values())
    assert result.voices.keys() == names(result.diarization.turns)
    assert all(np.linalg.norm(voice) == pytest.approx(1, abs=1e-5) for voice in result.voices.values())


@pytest.mark.parametrize("place", ["first", "among others", "last"])
def test_somebody_who_says_one_sentence_is_a_speaker(diarizer, meeting, as_audio, place):
    turns = [meeting.seconds(start, end) for start, end, _ in reference(MEETING)]
    maya, tom, tom_again, ewan_once, maya_again = (turns[number] for number in (0, 1, 4, 5, 6))
    others = [maya, tom, maya_again, tom_again] * 2
    others.insert({"first": 0, "among others": 4, "last": 8}[place], ewan_once)
    audio = as_audio(np.concatenate(others))
    result = diarizer.diarize_with_voices(audio, UNKNOWN, lambda done: None)
    assert len(result.voices) == 3
    starts = np.cumsum([0, *(len(turn) for turn in others)]) / 16_000
    place_of = next(number for number, turn in enumerate(others) if turn is ewan_once)
    middle_s = (starts[place_of] + starts[place_of + 1]) / 2
    talking = {turn.speaker for turn in result.diarization.turns if turn.start_s < middle_s < turn.end_s}
    elsewhere = {turn.speaker for turn in result.diarization.turns if not turn.start_s < middle_s < turn.end_s}
    assert len(talking) == 1 and not talking & elsewhere


def test_same_recording_gives_same_turns(diarizer, meeting):
    assert run(diarizer, meeting) == run(diarizer, meeting)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(SpeakerCount(exact=n), {n}) for n in (1, 2, 3, 4)]
    + [(SpeakerCount(maximum=1), {1}), (SpeakerCount(minimum=4, maximum=5), {4, 5})],
)
def test_number_of_speakers_is_honoured(diarizer, meeting, count, expected):
    result = run(diarizer, meeting, count)
    assert len(names(result.turns)) in expected


@pytest.mark.skipif(not (EVAL / "meetings").is_dir(), reason="no evaluation recordings beside the checkout")
@pytest.mark.parametrize("asked", [1, 2])
def test_number_of_speakers_is_honoured_where_speech_is_faint(diarizer, asked):
    with decode(EVAL / "meetings" / "trn01.flac", max_s=60) as audio:
        assert len(names(run(diarizer, audio, SpeakerCount(exact=asked)).turns)) == asked


@pytest.mark.parametrize(
    ("count", "least", "most"),
    [
        (UNKNOWN, 4, 12),
        (SpeakerCount(exact=12), 12, 12),
        (SpeakerCount(maximum=12), 4, 12),
        (SpeakerCount(maximum=5), 4, 5),
    ],
)
def test_twelve_voices_are_told_apart_within_what_is_asked(diarizer, twelve_voices, count, least, most):
    assert least <= len(names(run(diarizer, twelve_voices, count).turns)) <= most


def test_progress_rises_to_one(diarizer, meeting):
    seen: list[float] = []
    diarizer.diarize(meeting, UNKNOWN, seen.append)
    assert seen == sorted(seen)
    assert 0 < seen[0] <= seen[-1] == pytest.approx(1)


def test_very_quiet_speech_has_its_speakers(diarizer, meeting, as_audio):
    quiet = as_audio(meeting.read() * 0.003)
    assert names(run(diarizer, quiet).turns) == names(run(diarizer, meeting).turns)


def test_telephone_bandwidth_is_understood(diarizer, tmp_path, meeting):
    path = write(tmp_path / "call.wav", meeting.read()[None, ::2], rate_hz=8000)
    with decode(path, max_s=600) as call:
        assert names(run(diarizer, call).turns)


def test_clipped_speech_is_understood(diarizer, meeting, as_audio):
    assert names(run(diarizer, as_audio(meeting.read() * 1000)).turns)


def test_holes_of_nan_and_infinity_do_no_harm(diarizer, meeting, as_audio):
    samples = meeting.read()
    samples[16_000:20_000], samples[40_000:40_100] = np.nan, np.inf
    assert names(run(diarizer, as_audio(samples)).turns)


@pytest.mark.skipif(not (EVAL / "meetings").is_dir(), reason="no evaluation recordings beside the checkout")
@pytest.mark.parametrize("name", ["trn01", "trn02"])
def test_far_quiet_speech_has_speakers(diarizer, name):
    with decode(EVAL / "meetings" / f"{name}.flac", max_s=60) as audio:
        assert run(diarizer, audio).turns


# No speech


@pytest.mark.parametrize("seconds", [1 / 16_000, 0.03, 1.0, 9.99, 10.01, 25.0])
def test_silence_has_no_speakers(diarizer, as_audio, seconds):
    assert run(diarizer, as_audio(silence(seconds)[0]), SpeakerCount(exact=2)) == Diarization()


def test_nan_alone_has_no_speakers(diarizer, as_audio):
    assert run(diarizer, as_audio(np.full(50_000, np.nan))) == Diarization()


@pytest.mark.parametrize("seconds", [0.03, 0.5, 12.0])
def test_noise_and_tones_give_sane_turns(diarizer, as_audio, seconds):
    noise = np.random.default_rng(0).normal(0, 0.1, round(seconds * 16_000))
    chord = sum(tone(seconds, frequency_hz=pitch)[0] for pitch in (262, 330, 392)) / 3
    for samples in (noise, chord, np.sign(chord)):
        assert len(names(run(diarizer, as_audio(samples)).turns)) <= 2


def test_three_hours_of_silence_cost_little():
    code = (
        "import json, re, tempfile\n"
        "from backend.domain.transcript import SpeakerCount\n"
        "from backend.engines.audio.samples import Audio, MediaInfo\n"
        "from backend.engines.community1.diarizer import Community1Diarizer\n"
        "file = tempfile.TemporaryFile(); file.truncate(3 * 3600 * 16_000 * 4)\n"
        "audio = Audio(file, 3 * 3600 * 16_000, MediaInfo('wav', 'pcm', 16_000, 1, None))\n"
        "result = Community1Diarizer(threads=2).diarize(audio, SpeakerCount(), lambda done: None)\n"
        "status = open('/proc/self/status').read()\n"  # ru_maxrss would count the parent's memory too
        "print(json.dumps([len(result.turns), int(re.search(r'VmHWM:\\s+(\\d+)', status)[1]) // 1024]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    n_turns, peak_mb = json.loads(done.stdout)
    assert n_turns == 0
    assert peak_mb < 700


# Windows


@pytest.mark.parametrize("seconds", [4.0, 10.0, 13.3, 47.0, 200.0])
def test_all_windows_together_count_each_second_of_speech_once(seconds):
    starts = window_starts(round(seconds * 16_000), Tuning())
    talking = np.zeros((589, 3), dtype=bool)
    talking[:, 1] = True
    counted_s = sum(
        local.own_s for window in range(len(starts)) for local in local_speakers_of(talking, window, starts, Tuning())
    )
    assert counted_s == pytest.approx(max(seconds, 10), rel=0.02)


def test_a_local_speaker_made_of_two_voices_is_not_coherent():
    frames = np.ones(589, dtype=bool)
    one, other = np.eye(2, dtype=np.float32)
    at_s = np.arange(20, 30, 0.5, dtype=np.float32)
    same, mixed = Glimpses(at_s, np.tile(one, (20, 1))), Glimpses(at_s, np.array([one] * 10 + [other] * 10))
    assert same.coherence(frames, 20 * 16_000) == pytest.approx(1)
    assert mixed.coherence(frames, 20 * 16_000) == pytest.approx(0)
    assert mixed.coherence(np.arange(589) < 250, 20 * 16_000) == pytest.approx(1)
    assert mixed.coherence(frames, 90 * 16_000) == 1


# Turns from scores


def test_a_turn_starts_above_one_level_and_holds_above_a_lower_one():
    scores = np.array([[0.46, 0.6, 0.46, 0.3, 0.46, 0.3]], dtype=np.float32).T
    assert hysteresis(scores, 0.5, 0.45)[:, 0].tolist() == [True, True, True, False, False, False]


def test_pauses_are_filled_only_where_nobody_else_talks():
    active = np.array([[1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]], dtype=bool).T
    filled = fill_pauses(active, 2)
    assert filled[:, 0].tolist() == [bool(x) for x in (1, 1, 1, 1, 0, 1, 0, 0, 0, 0, 1)]


def test_exclusive_frames_go_to_the_likelier_speaker_of_a_stretch():
    active = np.array([[1, 1, 1, 0], [0, 1, 1, 1]], dtype=bool).T
    scores = np.array([[0.9, 0.5, 0.7, 0], [0, 0.8, 0.6, 0.9]], dtype=np.float32).T
    single = one_at_a_time(active, scores)
    assert single.sum(axis=1).tolist() == [1, 1, 1, 1]
    assert single[:, 1].tolist() == [False, True, True, True]


def test_turns_are_cut_to_the_recording():
    turns = to_turns(np.ones((10, 1), dtype=bool), ["A"], 0.1, -0.05, 0.8)
    assert [(turn.start_s, turn.end_s) for turn in turns] == [(0.0, 0.8)]
