"""Encoder x -> h, head h -> z, and classifiers."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ResNet18(nn.Module):
    """ResNet-18 from a log-mel patch to its representation h.

    Source: He et al. 2016, table 1, with one input channel and without the classifier. Names of the
    parameters and order of initialisation are torchvision's: its weights load once conv1's input
    channels are summed.

    Args:
        width: channels of the first stage; the next three have 2, 4 and 8 times as many.
            11,170,240 parameters at 64.
    """

    def __init__(self, width: int = 64):
        super().__init__()
        self.conv1 = StridedConv2d(1, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = _stage(width, width, stride=1)
        self.layer2 = _stage(width, 2 * width, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, stride=2)
        self.layer4 = _stage(4 * width, 8 * width, stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Float[Tensor, "B 1 F P"]) -> Float[Tensor, "B d"]:
        """Representation h, (B, 8 * width): non-negative, so angles between rows are <= pi / 2."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        # a mean in half precision would leave h with 2 or 3 digits
        return x.mean((2, 3), dtype=torch.promote_types(x.dtype, torch.float32))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, fig. 2)."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        convolution = StridedConv2d if stride > 1 else nn.Conv2d
        self.conv1 = convolution(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Float[Tensor, "B c F P"]) -> Float[Tensor, "B c2 F2 P2"]:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)) + shortcut, inplace=True)


class StridedConv2d(nn.Conv2d):
    """A padded convolution of stride 2 that is right on inputs of one or two frames, too.

    In bfloat16 on a processor, oneDNN 3.10 (of torch 2.11) makes their outputs, or the gradient of
    the weights, out of memory that is not theirs: other numbers in every run, now and then NaN.
    With zeros to their right they are three frames or more, and the first output is the same.
    """

    def forward(self, x: Float[Tensor, "B c F P"]) -> Float[Tensor, "B c2 F2 P2"]:
        if x.shape[-1] > 2:
            return super().forward(x)
        return super().forward(F.pad(x, (0, 4)))[..., :1]


def _stage(channels_in: int, channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        BasicBlock(channels_in, channels, stride), BasicBlock(channels, channels, stride=1)
    )


class ProjectionHead(nn.Sequential):
    """Two-layer perceptron h -> z, thrown away after pretraining.

    Source: Chen et al. 2020 (SimCLR), section 2.1, with batch normalisation as in Fonseca et al.
    2021. z leaves with any norm: the losses divide by it.

    Args:
        d_in, d_hidden, d_out: widths of h, of the hidden layer and of z; 512 each in the paper's
            code, 526,336 parameters.
    """

    def __init__(self, d_in: int, d_hidden: int, d_out: int):
        super().__init__(
            nn.Linear(d_in, d_hidden),
            nn.BatchNorm1d(d_hidden),
            nn.ReLU(inplace=True),
            nn.Linear(d_hidden, d_out),
        )


class LinearClassifier(nn.Linear):
    """Class scores (logits) as a linear function of h, with a bias: the linear probe.

    Args:
        d_in: width of h.
        num_classes: number of classes, K.
    """

    def __init__(self, d_in: int, num_classes: int):
        super().__init__(d_in, num_classes)


class Classifier(nn.Module):
    """An encoder with a linear layer on its h, for training with labels.

    Args:
        encoder: x -> h.
        d_in: width of h.
        num_classes: number of classes, K.
    """

    def __init__(self, encoder: nn.Module, d_in: int, num_classes: int):
        super().__init__()
        self.encoder = encoder
        self.linear = LinearClassifier(d_in, num_classes)

    def forward(
        self, x: Float[Tensor, "B 1 F P"]
    ) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B d"]]:
        """Logits and h."""
        h = self.encoder(x)
        return self.linear(h), h


class Part(nn.Module):
    """One of the two outputs, logits (0) or h (1), of a network that has both."""

    def __init__(self, network: nn.Module, index: int):
        super().__init__()
        self.network, self.index = network, index

    def forward(self, x: Float[Tensor, "B 1 F P"]) -> Float[Tensor, "B d"]:
        return self.network(x)[self.index]


class BaselineCNN(nn.Module):
    """The paper's supervised network: three 5x5 convolutions and two dense layers.

    Source: Fonseca et al. 2019 (FSDnoisy18k), as in the code of Wang, Tripathy and Mesaros 2023:
    batch normalisation and ReLU before and after every convolution. Their paper puts the angular
    margin on the layer before the classifier, their code on h as returned here.

    Args:
        num_classes: K; 531,238 parameters at 20 with the default patch.
        n_mels, patch_frames: F and P; the dense layer needs them.
    """

    def __init__(self, num_classes: int, *, n_mels: int = 96, patch_frames: int = 100):
        super().__init__()
        self.before1, self.after1 = nn.BatchNorm2d(1), nn.BatchNorm2d(24)
        self.before2, self.after2 = nn.BatchNorm2d(24), nn.BatchNorm2d(48)
        self.before3, self.after3 = nn.BatchNorm2d(48), nn.BatchNorm2d(48)
        self.conv1 = nn.Conv2d(1, 24, kernel_size=5, padding=2)
        self.conv2 = nn.Conv2d(24, 48, kernel_size=5, padding=2)
        self.conv3 = nn.Conv2d(48, 48, kernel_size=5, padding=2)
        self.pool = nn.MaxPool2d((2, 4))  # 2 bands by 4 frames
        self.dropout = nn.Dropout(0.5)
        self.dense = nn.Linear(48 * (n_mels // 4) * (patch_frames // 16), 64)
        self.classifier = nn.Linear(64, num_classes)

    def forward(
        self, x: Float[Tensor, "B 1 F P"]
    ) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B 48"]]:
        """Logits, and h: the maximum of each channel of conv3, signed, as no ReLU precedes it."""
        x = self.conv1(F.relu(self.before1(x)))
        x = self.pool(F.relu(self.after1(x)))
        x = self.conv2(F.relu(self.before2(x)))
        x = self.pool(F.relu(self.after2(x)))
        x = self.conv3(F.relu(self.before3(x)))
        h = x.amax((2, 3))
        x = self.dropout(F.relu(self.after3(x)).flatten(1))
        x = self.dropout(F.relu(self.dense(x)))
        return self.classifier(x), h
