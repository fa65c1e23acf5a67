"""He initialisation shared by the networks of the paper."""

from torch import nn


def he_initialise(model: nn.Module) -> None:
    """Draw every Conv2d and Linear weight from N(0, 2 / fan_in) and zero the biases.

    Paper: He et al., "Delving Deep into Rectifiers", ICCV 2015. The draws come from torch's default
    generator, so ``torch.manual_seed`` before building a network fixes its weights. Normalisation
    layers keep their own initial values (scale 1, shift 0).

    >>> layer = nn.Linear(4, 2)
    >>> he_initialise(layer)
    >>> layer.bias.tolist()
    [0.0, 0.0]
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def check_num_classes(num_classes: int) -> None:
    """Raise ValueError unless ``num_classes`` is a positive integer."""
    if not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 1:
        raise ValueError(f"num_classes must be a positive integer, got {num_classes!r}")
