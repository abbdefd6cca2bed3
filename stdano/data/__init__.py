from .augment import Augmentation
from .batches import Batch, Batches
from .digits import load_digits
from .source import DataSource, Samples


def load_data(settings, T):
    if settings.data != "digits":
        raise ValueError(f"data must be one of digits, got {settings.data!r}")
    return load_digits(settings.size)
