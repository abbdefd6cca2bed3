"""From training to a file for inference: ONNX, run by onnxruntime.

A small spiking network learns scikit-learn's handwritten digits. Its BatchNorms are folded into the convolutions, and
it is written to an ONNX file that takes any number of images. onnxruntime then runs the file, without stdano, and its
predictions are compared with those of the network.

    pip install 'stdano[app,bridges]' onnxruntime
    python examples/inference_export.py           # 96.7 % right, a file of 38 KiB
    python examples/inference_export.py --fast    # one epoch of training instead of five
"""

import argparse
from pathlib import Path

import onnxruntime
import torch
from torch import nn

import stdano
from stdano.data import Batches, load_data
from stdano.settings import DataSettings

T = 4  # time steps


class Network(nn.Module):
    """Two convolutions and a classifier; images [B, 1, 8, 8] to logits [B, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.first_neuron = stdano.LIFNode(tau=2.0)
        self.second = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1, stride=2, bias=False), nn.BatchNorm2d(16))
        self.second_neuron = stdano.LLIFNode(tau=2.0)
        self.classifier = nn.Linear(16 * 4 * 4, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        current = self.first(images)
        spikes = self.first_neuron(current.expand(T, *current.shape))  # the image is the input of every time step
        current = self.second(spikes.flatten(0, 1)).unflatten(0, spikes.shape[:2])  # convolutions know no time
        spikes = self.second_neuron(current)
        return self.classifier(spikes.mean(0).flatten(1))


def train(model: nn.Module, batches: Batches, epochs: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for epoch in range(epochs):
        for images, labels, _ in batches.epoch(epoch):
            with stdano.stateless(model):  # every batch is a sequence of its own
                loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="train for one epoch")
    parser.add_argument("--file", type=Path, default=Path("digits.onnx"), help="where to write the network to")
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    digits = load_data(DataSettings(data="digits"), T)
    model = Network()
    train(model, Batches(digits, "train", batch_size=64, shuffle=True), epochs=1 if options.fast else 5)

    folded = stdano.fuse_conv_bn(model.eval())  # a copy, with fewer operations
    images, labels, _ = next(Batches(digits, "test", batch_size=len(digits.test)).epoch(0))
    stdano.to_onnx(folded, images[:2], options.file, dynamic=(0,))  # axis 0, the batch, may have any size
    print(f"{options.file}: {options.file.stat().st_size / 1024:.1f} KiB")

    session = onnxruntime.InferenceSession(options.file)
    (logits,) = session.run(None, {"input": images.numpy()})
    predicted = torch.from_numpy(logits).argmax(1)
    with torch.no_grad(), stdano.stateless(model):
        expected = model(images).argmax(1)
    print(f"accuracy of onnxruntime: {100 * (predicted == labels).double().mean():.1f} %")
    print(f"predictions that agree with stdano: {(predicted == expected).sum()} of {len(images)}")


if __name__ == "__main__":
    main()
