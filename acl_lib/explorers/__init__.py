"""What a reader can drag: one ES module each, live in JupyterLab, inlined in the printed page.

    circle(alpha=0.3)                    # points on the circle or sphere under the gradient of ACL
    penalty(temperature=0.2)             # what each negative gets, against its cosine
    two_views(data, store)               # two views of a clip, step by step, seen and heard
    results("../book/results")           # the recorded sweeps over alpha and temperature
    sound_map()                          # clips on PCA and UMAP maps under four networks, heard
    training(settings)                   # a pretraining, recorded or running, to steer
    explore(draw, alpha=[0, 0.5, 1])     # sliders over a figure that a notebook draws itself

In JupyterLab all but the last are widgets (anywidget) whose values are traits: `w.alpha` reads what
the slider of a `circle` says, `w.alpha = 1` moves it. In the book the same text runs in the page,
without a kernel and without a network, from a double-clicked file too.
"""

from .frames import explore
from .live import training
from .maps import sound_map
from .sounds import two_views
from .sweeps import results
from .toys import circle, penalty

__all__ = ["circle", "explore", "penalty", "results", "sound_map", "training", "two_views"]
