"""The built-in engines on real sound: what a laptop without a network can do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.config import Settings
from backend.domain.transcript import Diarization, SpeakerCount, SpeakerTurn
from backend.engines.base import TranscribeOptions
from backend.engines.community1.diarizer import Community1Diarizer
from backend.engines.moonshine.model import MoonshineModel, read_tokens
from backend.engines.moonshine.transcriber import MAX_PIECE_S, MoonshineTranscriber
from backend.errors import InvalidInput
from backend.services.speech.pipeline import SpeechPipeline
from backend.services.speech.steps import DirectSteps
from backend.services.speech.values import SpeechOptions, SpeechResult
from backend.wiring.engines import open_speech
from tests.conftest import SAMPLE
from tests.support.media import decode, silence, tone, write
from tests.support.sounds import wordless_sounds

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def moonshine() -> MoonshineTranscriber:
    return MoonshineTranscriber(threads=2)


@pytest.fixture
def speech(settings: Settings) -> Iterator[SpeechPipeline]:
    (Path(settings.storage.upload_dir) / ".spool").mkdir(parents=True)
    yield open_speech(settings)


def said(path: Path = SAMPLE) -> list[tuple[float, float, str, str]]:
    """Start, end, speaker and words of each turn of the sample."""
    rows = (line.split(None, 5) for line in path.with_suffix(".stm").read_text().splitlines())
    return [(float(row[3]), float(row[4]), row[2], row[5]) for row in rows]


def no_progress(_fraction: float) -> None:
    pass


async def run(speech: SpeechPipeline, path: Path, speakers: SpeakerCount | None = None) -> SpeechResult:
    return await speech.run(path, SpeechOptions(speakers=speakers or SpeakerCount()), DirectSteps())


async def test_the_sample_has_its_three_speakers_and_most_words_right(speech: SpeechPipeline) -> None:
    result = await run(speech, SAMPLE)
    assert len(result.transcript.speakers) == len({speaker for _, _, speaker, _ in said()}) == 3
    heard = " ".join(segment.text for segment in result.transcript.segments).lower().split()
    wanted = " ".join(words for *_, words in said()).lower().split()
    assert len(set(wanted) & set(heard)) > 0.65 * len(set(wanted))
    assert result.transcript.language == "en"


async def test_all_speech_of_the_sample_has_words(speech: SpeechPipeline) -> None:
    coverage = (await run(speech, SAMPLE)).coverage
    assert coverage.speech_s > 25
    assert coverage.without_words_s == 0


async def test_the_same_recording_gives_the_same_transcript(speech: SpeechPipeline) -> None:
    assert (await run(speech, SAMPLE)).transcript == (await run(speech, SAMPLE)).transcript


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_the_number_of_speakers_is_honoured(speech: SpeechPipeline, count: int) -> None:
    result = await run(speech, SAMPLE, SpeakerCount(exact=count))
    assert len(result.transcript.speakers) == count


async def test_silence_behind_the_sample_adds_no_speaker(speech: SpeechPipeline, tmp_path: Path) -> None:
    with decode(SAMPLE, max_s=60) as audio:
        padded = np.append(audio.read(), silence(10.0)[0])
    result = await run(speech, write(tmp_path / "padded.wav", padded[None]))
    assert len(result.transcript.speakers) == 3


def music(seconds: float) -> NDArray[np.float32]:
    """A slow chord progression with decaying notes: harmonic, loud, and nobody's voice."""
    out = np.zeros(round(seconds * RATE_HZ), np.float32)
    note = np.arange(RATE_HZ // 2) / RATE_HZ
    rng = np.random.default_rng(3)
    for start in range(0, len(out) - len(note), RATE_HZ // 4):
        pitch = 220 * 2 ** (rng.choice([0, 4, 7, 12]) / 12)
        out[start : start + len(note)] += (0.15 * np.exp(-6 * note) * np.sin(2 * np.pi * pitch * note)).astype("f4")
    return out[None]


@pytest.mark.parametrize(
    "sound",
    [
        pytest.param(silence(8.0), id="silence"),
        pytest.param(music(8.0), id="music"),
        pytest.param(tone(8.0), id="tone"),
        pytest.param(np.random.default_rng(1).normal(0, 0.05, (1, 8 * RATE_HZ)).astype(np.float32), id="noise"),
        pytest.param(silence(0.03), id="30 ms"),
    ],
)
async def test_where_nobody_speaks_the_transcript_is_empty(
    speech: SpeechPipeline, tmp_path: Path, sound: NDArray[np.float32]
) -> None:
    result = await run(speech, write(tmp_path / "sound.wav", sound))
    assert result.transcript.segments == () and result.transcript.speakers == () and result.stats == {}


async def test_sounds_that_pass_for_voices_have_no_words(speech: SpeechPipeline, tmp_path: Path) -> None:
    sounds = wordless_sounds(6.0, seed=2)
    chosen = ("ring-back tone", "European ring-back tone", "siren", "humming", "plucked tune")
    joined = np.concatenate([part for name in chosen for part in (sounds[name], silence(2.0)[0])])
    result = await run(speech, write(tmp_path / "sounds.wav", joined[None]))
    assert result.transcript.segments == ()
    assert result.coverage.without_words_s == 0


@pytest.mark.parametrize(("rate_hz", "codec"), [(8_000, "pcm_mulaw"), (48_000, "pcm_s24le")])
async def test_phone_and_studio_recordings_are_heard(
    speech: SpeechPipeline, tmp_path: Path, rate_hz: int, codec: str
) -> None:
    with decode(SAMPLE, max_s=60) as audio:
        positions = np.arange(round(audio.duration_s * rate_hz)) / rate_hz * RATE_HZ
        samples = np.interp(positions, np.arange(audio.n_samples), audio.read()).astype(np.float32)
    result = await run(speech, write(tmp_path / "a.wav", samples[None], rate_hz=rate_hz, codec=codec))
    assert len(result.transcript.speakers) >= 2
    assert len(" ".join(segment.text for segment in result.transcript.segments).split()) > 60


async def test_clipped_speech_is_still_heard(speech: SpeechPipeline, tmp_path: Path) -> None:
    with decode(SAMPLE, max_s=60) as audio:
        loud = np.clip(audio.read() * 20, -1, 1)
    result = await run(speech, write(tmp_path / "loud.wav", loud[None]))
    assert len(" ".join(segment.text for segment in result.transcript.segments).split()) > 50


def test_words_have_times_in_order_inside_their_turns(moonshine: MoonshineTranscriber) -> None:
    turns = tuple(SpeakerTurn(start_s, end_s, speaker) for start_s, end_s, speaker, _ in said()[:3])
    with decode(SAMPLE, max_s=60) as audio:
        heard = moonshine.transcribe(audio, TranscribeOptions(), Diarization(turns, turns), no_progress)
    assert len(heard.segments) == len(turns)
    for segment, turn in zip(heard.segments, turns, strict=True):
        times = [time_s for word in segment.words for time_s in (word.start_s, word.end_s)]
        assert None not in times and times == sorted(times)
        assert segment.start_s == pytest.approx(turn.start_s, abs=0.1)
        assert segment.end_s == pytest.approx(turn.end_s, abs=0.2)
        assert segment.text == "".join(word.text for word in segment.words).strip()
        assert all(word.probability and 0 < word.probability <= 1 for word in segment.words)
    assert "library" in heard.segments[0].text.lower()


async def test_in_overlapping_speech_each_sentence_is_whole_and_its_speakers(speech: SpeechPipeline) -> None:
    result = await run(speech, SAMPLE)
    [tom] = [segment for segment in result.transcript.segments if "nothing else" in segment.text]
    [ewan] = [segment for segment in result.transcript.segments if "collect" in segment.text]
    assert tom.speaker != ewan.speaker
    assert "drive there" in ewan.text and "drive" not in tom.text
    assert " I" not in tom.text and ewan.text.startswith("I ")


def test_a_long_monologue_is_cut_in_its_pauses(moonshine: MoonshineTranscriber) -> None:
    with decode(SAMPLE, max_s=60) as audio:
        whole = (SpeakerTurn(0.0, audio.duration_s, "one"),)
        heard = moonshine.transcribe(audio, TranscribeOptions(), Diarization(whole, whole), no_progress)
    assert len(heard.segments) >= 2
    assert all(segment.end_s - segment.start_s <= MAX_PIECE_S for segment in heard.segments)
    assert heard.segments[0].end_s <= heard.segments[1].start_s


def test_without_turns_speech_is_found_by_voice_activity(moonshine: MoonshineTranscriber) -> None:
    with decode(SAMPLE, max_s=60) as audio:
        heard = moonshine.transcribe(audio, TranscribeOptions(), None, no_progress)
    assert len(" ".join(segment.text for segment in heard.segments).split()) > 60


def test_progress_reaches_the_end(moonshine: MoonshineTranscriber) -> None:
    seen: list[float] = []
    with decode(SAMPLE, max_s=60) as audio:
        turns = tuple(SpeakerTurn(start_s, end_s, speaker) for start_s, end_s, speaker, _ in said())
        moonshine.transcribe(audio, TranscribeOptions(), Diarization(turns, turns), seen.append)
    assert seen == sorted(seen) and seen[-1] == 1.0


def test_another_language_is_refused_with_the_way_to_get_it(moonshine: MoonshineTranscriber) -> None:
    with pytest.raises(InvalidInput, match="aperta models pull"):
        moonshine.check(TranscribeOptions(language="de"))
    moonshine.check(TranscribeOptions(language="en"))


def test_a_piece_that_makes_the_model_repeat_itself_is_cut_short_in_any_company() -> None:
    with decode(SAMPLE, max_s=60) as audio:
        speech = audio.seconds(0.5, 9.5)
        stammer = np.tile(audio.seconds(1.0, 1.4), 6)
    model = MoonshineModel()
    [alone] = model.transcribe([stammer])
    beside, _ = model.transcribe([stammer, speech])
    assert [word.text for word in alone] == [word.text for word in beside]
    assert 0 < len(alone) < 10


def test_a_sentence_that_is_said_five_times_is_written_five_times_or_more() -> None:
    with decode(SAMPLE, max_s=60) as audio:
        greeting = audio.seconds(0.4, 1.9)
    [words] = MoonshineModel().transcribe([np.tile(greeting, 5)])
    assert "".join(word.text for word in words).lower().count("good morning") >= 5


def test_the_vocabulary_file_is_read_with_short_and_long_tokens() -> None:
    long = b"x" * 300
    data = b"\x05<unk>" + b"\x01a" + bytes([300 % 128 + 128, 300 // 128]) + long + b"\x00"
    assert read_tokens(data) == [b"", b"a", long, b""]


def test_the_diarizer_says_what_it_is() -> None:
    assert "community-1" in Community1Diarizer.name
