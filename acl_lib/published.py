"""What the papers and their code report, as data: every figure as printed, one run per setting.

    table = TABLES["alpha_sweep"]
    table.column("linear_micro")

Accuracies are percent of the 947 test clips of FSDnoisy18k unless a table says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

TEST_CLIPS = 947
TEST_PATCHES = 8866  # the unit of what the authors' self-supervised code calls micro accuracy


@dataclass(frozen=True)
class Table:
    """One published table.

    Attributes:
        source: where it is printed.
        columns: names; `alpha` weighs the first term, 1.0 is the loss without the angular one.
    """

    source: str
    columns: tuple[str, ...]
    rows: tuple[tuple, ...]

    def column(self, name: str) -> list:
        """All values of a column, from the first row to the last.

        Raises:
            ValueError: no such column; names those there are.
        """
        if name not in self.columns:
            raise ValueError(f"no column {name!r}; there are {', '.join(self.columns)}")
        at = self.columns.index(name)
        return [row[at] for row in self.rows]


TABLES = {
    # cross-entropy against cross-entropy + angular margin, by the part that was trained on
    "supervised": Table(
        "Wang, Tripathy and Mesaros 2023, Table 1",
        ("part", "ce", "ce_margin", "alpha"),
        (
            ("all", 70.1, 73.6, 0.7),
            ("noisy", 66.4, 68.3, 0.4),
            ("noisy_small", 33.7, 39.9, 0.2),
            ("clean", 60.2, 64.5, 0.5),
        ),
    ),
    # the last two are weighted by patches, the first two are shares of clips
    "systems": Table(
        "Wang, Tripathy and Mesaros 2023, Table 2",
        ("system", "accuracy", "alpha"),
        (
            ("supervised", 70.1, 1.0),
            ("supervised + margin", 73.6, 0.7),
            ("self-supervised", 74.2, 1.0),
            ("self-supervised + ACL", 77.1, 0.3),
        ),
    ),
    # self-supervised, temperature 0.2: linear probe and end-to-end fine-tuning; micro is weighted
    # by patches, macro the mean over classes
    "alpha_sweep": Table(
        "README of the authors' self-supervised code",
        (
            "alpha",
            "linear_micro",
            "linear_macro",
            "finetuned_noisy_micro",
            "finetuned_noisy_macro",
            "finetuned_clean_micro",
            "finetuned_clean_macro",
        ),
        (
            (0.0, 71.295, 71.125, 71.566, 71.132, 79.044, 76.803),
            (0.1, 74.994, 72.924, 72.513, 73.125, 79.596, 77.349),
            (0.2, 74.701, 72.656, 76.156, 74.001, 78.04, 76.477),
            (0.3, 77.07, 74.463, 72.118, 72.521, 79.856, 76.608),
            (0.4, 71.712, 70.757, 72.795, 72.551, 79.912, 76.654),
            (0.5, 74.013, 72.688, 73.303, 72.114, 78.141, 76.12),
            (0.6, 76.596, 74.975, 76.416, 76.0, 79.461, 77.963),
            (0.7, 75.671, 73.688, 71.701, 72.487, 78.017, 76.176),
            (0.8, 76.472, 73.687, 76.416, 75.596, 76.731, 76.116),
            (0.9, 74.453, 73.291, 77.543, 74.953, 78.119, 76.513),
            (1.0, 74.16, 72.698, 77.521, 75.563, 79.111, 77.057),
        ),
    ),
    # the classifier's own accuracy, by the part that was trained on; 1.0 is plain cross-entropy
    "supervised_alpha_sweep": Table(
        "README of the authors' supervised code",
        ("alpha", "clean", "all", "noisy", "noisy_small"),
        (
            (0.1, 56.0, 67.4, 64.9, 34.5),
            (0.2, 61.4, 69.8, 65.4, 39.9),
            (0.3, 61.0, 71.9, 68.3, 39.3),
            (0.4, 62.1, 72.7, 68.3, 33.5),
            (0.5, 64.5, 71.2, 67.7, 39.0),
            (0.6, 63.0, 71.3, 66.9, 33.3),
            (0.7, 57.9, 73.6, 67.5, 35.0),
            (0.8, 58.1, 72.7, 67.1, 31.6),
            (0.9, 58.6, 71.6, 66.1, 33.1),
            (1.0, 60.2, 70.1, 66.4, 33.7),
        ),
    ),
    # Fig. 3: at each temperature NT-Xent and ACL with one alpha; micro accuracy of the linear
    # probe, minus uniformity, tolerance (that of ACL at 0.3 repeats the one at 0.2: the released
    # features give 0.9595)
    "temperature": Table(
        "README of the authors' self-supervised code, Fig. 3 of the paper",
        ("temperature", "alpha", "linear_micro", "minus_uniformity", "tolerance"),
        (
            (0.1, 1.0, 77.081, 0.3976, 0.9113),
            (0.1, 0.7, 78.356, 0.2447, 0.9471),
            (0.2, 1.0, 74.16, 0.3719, 0.9189),
            (0.2, 0.3, 77.07, 0.2605, 0.9437),
            (0.3, 1.0, 75.57, 0.2954, 0.9357),
            (0.3, 0.4, 75.615, 0.1874, 0.9437),
            (0.4, 1.0, 75.175, 0.3126, 0.9328),
            (0.4, 0.8, 75.389, 0.1733, 0.9632),
            (0.5, 1.0, 74.893, 0.3377, 0.9269),
            (0.5, 0.3, 77.149, 0.1944, 0.9589),
            (0.6, 1.0, 75.626, 0.3106, 0.9339),
            (0.6, 0.7, 77.645, 0.1839, 0.9601),
            (0.7, 1.0, 75.897, 0.3166, 0.9301),
            (0.7, 0.2, 76.664, 0.2118, 0.9532),
            (0.8, 1.0, 74.126, 0.3129, 0.9329),
            (0.8, 0.9, 75.276, 0.1512, 0.9684),
            (0.9, 1.0, 72.93, 0.268, 0.944),
            (0.9, 0.3, 76.81, 0.2052, 0.9595),
            (1.0, 1.0, 71.329, 0.356, 0.9271),
            (1.0, 0.9, 75.964, 0.153, 0.9676),
        ),
    ),
    # VoxCeleb1-O: equal error rate in percent, minimum detection cost; None where not printed
    "speaker_verification": Table(
        "README v2.0 of the sslsv toolkit (Fast ResNet-34); the last row: Lepage and Dehak 2024",
        ("system", "eer", "min_dcf"),
        (
            ("LIM", 16.13, 0.9015),
            ("CPC", 12.77, 0.8033),
            ("SimCLR", 9.05, 0.6364),
            ("MoCo", 8.49, 0.5990),
            ("DeepCluster", 15.16, 0.8193),
            ("SwAV", 11.82, 0.7177),
            ("W-MSE", 14.62, 0.8506),
            ("Barlow Twins", 13.22, 0.7658),
            ("VICReg", 11.33, 0.6658),
            ("BYOL", 13.99, 0.7509),
            ("SimSiam", 28.94, 0.9984),
            ("DINO", 6.04, 0.4526),
            ("supervised, additive angular margin", 2.95, 0.3122),
            ("SimCLR, symmetric, additive margin", 7.85, None),
        ),
    ),
}
