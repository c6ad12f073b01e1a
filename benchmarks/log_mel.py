"""Time to make the log-mel store, per hour of audio, against librosa doing the same.

Sixty clips of the synthetic corpus: read, resampled, transformed, stored by LogMelStore on one
thread; and read and transformed one by one by librosa. Process CPU time, least of several rounds.
Prints a table, writes book/results/benchmark_log_mel.json.

    python benchmarks/log_mel.py [--rounds 3] [--out FILE]
"""

import argparse
import tempfile
from pathlib import Path

import librosa
import numpy as np
import soundfile
import torch
from timing import cpu_seconds, write_record

from acl_lib.config import MelConfig, recipe
from acl_lib.experiments import open_recipe_corpus
from acl_lib.features import LogMel, LogMelStore

RECORD = Path(__file__).parents[1] / "book" / "results" / "benchmark_log_mel.json"


def by_librosa(corpus):
    for clip in corpus.clips:
        wav, rate = librosa.load(clip.path, sr=22_050)
        wav = wav - wav.mean()
        wav = np.resize(wav, max(len(wav), rate)) / (np.abs(wav).max() + 0.005)
        mel = librosa.feature.melspectrogram(
            y=wav,
            sr=rate,
            n_fft=2048,
            hop_length=220,
            win_length=660,
            window="hamming",
            pad_mode="reflect",
            n_mels=96,
            fmin=50,
            fmax=10_500,
            norm=None,
        )
        np.log10(mel + MelConfig.floor)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RECORD)
    options = parser.parse_args()
    torch.set_num_threads(1)
    corpus = open_recipe_corpus(recipe("contrastive"))
    corpus = corpus.select(range(60))
    hours = sum(soundfile.info(clip.path).duration for clip in corpus.clips) / 3600

    def by_store():
        with tempfile.TemporaryDirectory() as folder:
            LogMelStore.build(corpus, LogMel(), folder, workers=1)

    least = {}
    for name, build in {"LogMelStore": by_store, "librosa": lambda: by_librosa(corpus)}.items():
        build()  # librosa compiles at its first call
        least[name] = min(cpu_seconds(build) for _ in range(options.rounds)) / hours
    ratio = least["librosa"] / least["LogMelStore"]
    print(f"{'by':12} {'CPU s per hour':>15}")
    for name, seconds in least.items():
        print(f"{name:12} {seconds:15.1f}")
    print(f"librosa takes {ratio:.2f} times as long")
    rows = {name: round(seconds, 2) for name, seconds in least.items()}
    measured = f"CPU seconds per hour of audio, least of {options.rounds} rounds"
    write_record(
        options.out, {"measured": measured, "hours": hours, "rows": rows, "ratio": round(ratio, 3)}
    )


if __name__ == "__main__":
    main()
