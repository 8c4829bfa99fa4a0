"""The encoder of the first deep siamese network, for whole Omniglot pictures."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["KochEncoder"]


class KochEncoder(nn.Module):
    """Four unpadded convolutions of shrinking kernels, three of them pooled; 105 px give 9,216.

    There is no normalization. Weights are drawn as in the paper: normal with deviation .01, biases
    around 1/2.

    Args:
        input_shape: (channels, height, width) of a picture; 105 px in the paper.

    Example:
        >>> KochEncoder((1, 105, 105))(torch.zeros(2, 1, 105, 105)).shape
        torch.Size([2, 9216])

    Reference:
        Siamese Neural Networks for One-shot Image Recognition. ICML Deep Learning Workshop 2015,
        figure 4. https://www.cs.cmu.edu/~rsalakhu/papers/oneshot1.pdf
    """

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        channels, height, width = input_shape
        layers = []
        for block, (outputs, size) in enumerate(((64, 10), (128, 7), (128, 4), (256, 4))):
            layers.append(nn.Conv2d(channels, outputs, size))
            height, width = height - size + 1, width - size + 1
            if block < 3:
                height, width = height // 2, width // 2
            if min(height, width) < 1:
                raise ValueError(
                    f"Pictures of {input_shape[1:]} pixels are too small for four unpadded "
                    "convolutions: use at least 65 px, 105 as in the paper."
                )
            channels = outputs
        self.convolutions = nn.ModuleList(layers)
        for layer in layers:
            nn.init.normal_(layer.weight, 0.0, 0.01)
            nn.init.normal_(layer.bias, 0.5, 0.01)
        self.embedding_dim = channels * height * width

    def forward(
        self, pictures: Float[Tensor, "n channels height width"]
    ) -> Float[Tensor, "n embedding"]:
        """Embeddings of pictures."""
        x = pictures
        for block, convolution in enumerate(self.convolutions):
            x = F.relu(convolution(x))
            x = F.max_pool2d(x, 2) if block < 3 else x
        return torch.flatten(x, 1)
