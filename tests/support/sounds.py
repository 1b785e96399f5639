"""Sounds without a word: noise, music, telephone tones, breath, humming. (n_samples,) float32, 16 kHz, mono."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from backend.engines.audio.samples import SAMPLE_RATE_HZ

Floats = NDArray[np.float32]


def wordless_sounds(duration_s: float = 20.0, *, seed: int = 0) -> dict[str, Floats]:
    """One recording of each kind, by name. Pitches, pauses and tunes come from the seed."""
    rng = np.random.default_rng(seed)
    makers: dict[str, Callable[[float, np.random.Generator], Floats]] = {
        "silence": lambda s, _: np.zeros(round(s * SAMPLE_RATE_HZ), dtype=np.float32),
        "dither": lambda s, r: _level(_noise(s, r), 0.0001),
        "white noise": lambda s, r: _level(_noise(s, r), 0.3),
        "pink noise": lambda s, r: _level(_coloured(s, r, 0.5), 0.3),
        "rumble": lambda s, r: _level(_coloured(s, r, 1.0), 0.3),
        "plucked tune": plucked_tune,
        "chords": _chords,
        "drums": _drums,
        "dial tone": lambda s, _: _tones(s, (350, 440)),
        "ring-back tone": lambda s, r: _cadence(_tones(s, (440, 480)), r.uniform(1, 2), r.uniform(3, 4)),
        "European ring-back tone": lambda s, r: _cadence(_tones(s, (425,)), 1.0, r.uniform(3, 5)),
        "busy tone": lambda s, _: _cadence(_tones(s, (480, 620)), 0.5, 0.5),
        "dialling": _dialling,
        "mains hum": lambda s, _: _tones(s, (50, 100, 150, 250)),
        "siren": _siren,
        "breathing": _breathing,
        "humming": humming,
        "knocks": _knocks,
    }
    return {name: make(duration_s, np.random.default_rng(rng.integers(2**32))) for name, make in makers.items()}


def plucked_tune(duration_s: float, rng: np.random.Generator) -> Floats:
    """Notes of a plucked string in a major scale: a jingle, a hold tone, a door bell."""
    t = _time(duration_s)
    out = np.zeros_like(t)
    at_s = 0.0
    while at_s < duration_s:
        pitch_hz = 220 * 2 ** (rng.choice([0, 2, 4, 5, 7, 9, 11, 12, 16]) / 12)
        since = t - at_s
        note = np.where(since >= 0, np.exp(-2.5 * np.maximum(since, 0)), 0.0)
        out += note * sum(np.sin(2 * np.pi * pitch_hz * k * since) / k for k in (1, 2, 3, 4))
        at_s += rng.choice([0.25, 0.5, 0.5, 1.0])
    return _level(out, 0.5)


def humming(duration_s: float, rng: np.random.Generator) -> Floats:
    """A closed mouth: few harmonics, a slowly moving pitch, vibrato, a breath every few seconds."""
    t = _time(duration_s)
    knots = np.arange(0, duration_s + 2, 0.8)
    pitch_hz = 140 * 2 ** (np.interp(t, knots, rng.choice([0, 2, 4, 5, 7], len(knots))) / 12)
    phase = 2 * np.pi * np.cumsum(pitch_hz * (1 + 0.01 * np.sin(2 * np.pi * 5 * t))) / SAMPLE_RATE_HZ
    voice = sum(np.sin(k * phase) / k**2 for k in range(1, 7))
    return _level(voice * (np.mod(t, 4.0) < 3.4), 0.4)


def _chords(duration_s: float, rng: np.random.Generator) -> Floats:
    t = _time(duration_s)
    out = np.zeros_like(t)
    for bar in range(int(duration_s / 2) + 1):
        root_hz = 130.8 * 2 ** (rng.choice([0, 5, 7, 9]) / 12)
        since = t - 2 * bar
        shape = np.where((since >= 0) & (since < 2), np.exp(-0.7 * np.maximum(since, 0)), 0.0)
        for step in (0, 4, 7, 12):
            pitch_hz = root_hz * 2 ** (step / 12)
            out += shape * sum(np.sin(2 * np.pi * pitch_hz * k * t) / k**1.5 for k in range(1, 7))
    return _level(out, 0.5)


def _drums(duration_s: float, rng: np.random.Generator) -> Floats:
    t = _time(duration_s)
    out = np.zeros_like(t)
    for beat in range(int(duration_s * 2)):
        since = t - beat / 2
        decay = np.where(since >= 0, np.exp(-25 * np.maximum(since, 0)), 0.0)
        out += decay * (np.sin(2 * np.pi * 60 * since) if beat % 2 else 0.4 * rng.standard_normal(len(t)))
    return _level(out, 0.6)


def _dialling(duration_s: float, rng: np.random.Generator) -> Floats:
    low, high = (697, 770, 852, 941), (1209, 1336, 1477)
    digits = [_tones(0.12, (rng.choice(low), rng.choice(high))) for _ in range(int(duration_s / 0.25))]
    pause = np.zeros(round(0.1 * SAMPLE_RATE_HZ), dtype=np.float32)
    return _fit(np.concatenate([part for digit in digits for part in (digit, pause)]), duration_s)


def _siren(duration_s: float, rng: np.random.Generator) -> Floats:
    t = _time(duration_s)
    pitch_hz = 700 + 300 * np.sin(2 * np.pi * rng.uniform(0.2, 0.5) * t)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE_HZ
    return _level(np.sin(phase) + 0.3 * np.sin(2 * phase), 0.4)


def _breathing(duration_s: float, rng: np.random.Generator) -> Floats:
    t = _time(duration_s)
    shape = np.maximum(0, np.sin(2 * np.pi * rng.uniform(0.25, 0.4) * t)) ** 2
    return _level(_coloured(duration_s, rng, 0.3) * shape, 0.15)


def _knocks(duration_s: float, rng: np.random.Generator) -> Floats:
    t = _time(duration_s)
    out = np.zeros_like(t)
    for at_s in np.cumsum(rng.uniform(0.2, 3.0, int(duration_s))):
        since = np.maximum(t - at_s, 0)
        out += (t >= at_s) * np.exp(-60 * since) * np.sin(2 * np.pi * rng.uniform(120, 400) * since)
    return _level(out, 0.6)


def _tones(duration_s: float, pitches_hz: Sequence[float]) -> Floats:
    t = _time(duration_s)
    return _level(sum((np.sin(2 * np.pi * pitch_hz * t) for pitch_hz in pitches_hz), np.zeros_like(t)), 0.3)


def _cadence(samples: Floats, on_s: float, off_s: float) -> Floats:
    t = np.arange(len(samples)) / SAMPLE_RATE_HZ
    return (samples * (np.mod(t, on_s + off_s) < on_s)).astype(np.float32)


def _noise(duration_s: float, rng: np.random.Generator) -> Floats:
    return rng.standard_normal(round(duration_s * SAMPLE_RATE_HZ)).astype(np.float32)


def _coloured(duration_s: float, rng: np.random.Generator, slope: float) -> Floats:
    """Noise whose amplitude falls with frequency to the power of `slope`."""
    spectrum = np.fft.rfft(_noise(duration_s, rng))
    frequencies = np.arange(len(spectrum), dtype=np.float64)
    spectrum *= np.maximum(frequencies, 20 * duration_s) ** -slope
    return np.fft.irfft(spectrum, round(duration_s * SAMPLE_RATE_HZ)).astype(np.float32)


def _time(duration_s: float) -> NDArray[np.float64]:
    return np.arange(round(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ


def _level(samples: NDArray[np.floating], peak: float) -> Floats:
    return (samples * peak / max(1e-9, float(np.abs(samples).max()))).astype(np.float32)


def _fit(samples: Floats, duration_s: float) -> Floats:
    n_samples = round(duration_s * SAMPLE_RATE_HZ)
    return np.pad(samples, (0, max(0, n_samples - len(samples))))[:n_samples]
