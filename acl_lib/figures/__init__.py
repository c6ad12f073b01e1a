"""Arrays or records -> one matplotlib Figure: axes with units, colours that everyone can tell."""

from .costs import growth, moments, ratios
from .curves import curves, histogram, loss_curve, panels, seed_curves
from .scores import accuracies, differences, heat_map, intervals, seeds, side_by_side
from .sound import (
    belonging,
    class_sizes,
    feature_maps,
    label_matrix,
    log_mels,
    patches,
    two_spaces,
    waveforms,
)
from .sphere import angles, circle_paths, cosines, geometry, maps, on_circle, pair_forces, spreads
from .style import COLOURS, SECONDS
from .verification import det_curves, trial_scores

__all__ = [
    "COLOURS",
    "SECONDS",
    "accuracies",
    "angles",
    "belonging",
    "circle_paths",
    "class_sizes",
    "cosines",
    "curves",
    "det_curves",
    "differences",
    "feature_maps",
    "geometry",
    "growth",
    "heat_map",
    "histogram",
    "intervals",
    "label_matrix",
    "log_mels",
    "loss_curve",
    "maps",
    "moments",
    "on_circle",
    "pair_forces",
    "panels",
    "patches",
    "ratios",
    "seed_curves",
    "seeds",
    "side_by_side",
    "spreads",
    "trial_scores",
    "two_spaces",
    "waveforms",
]
