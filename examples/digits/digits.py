"""The digits task: its data, its model, and how both are judged. The notebook and train.py share it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, f1_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

CLASSES = np.arange(10)


class Data(NamedTuple):
    """Images as rows of 64 grey values between 0 and 16, and the digit that each shows."""

    train_images: np.ndarray
    test_images: np.ndarray
    train_labels: np.ndarray
    test_labels: np.ndarray


class Epoch(NamedTuple):
    """How the model stands after one pass over the training images."""

    number: int
    loss: float
    accuracy: float


def load(seed: int, test_share: float = 0.25) -> Data:
    """Scikit-learn's own 1,797 digits, split so that every digit has its share on both sides."""
    images, labels = load_digits(return_X_y=True)
    return Data(
        *train_test_split(
            images, labels, test_size=test_share, stratify=labels, random_state=seed
        )
    )


class Trainer:
    """A small neural network that learns one epoch at a time."""

    def __init__(self, data: Data, hidden: int, learning_rate: float, seed: int):
        self.data = data
        self.scaler = StandardScaler().fit(data.train_images)
        self.network = MLPClassifier(
            hidden_layer_sizes=(hidden,),
            learning_rate_init=learning_rate,
            random_state=seed,
        )

    def epochs(self, count: int) -> Iterator[Epoch]:
        """Trains for `count` epochs and tells after each how the test images fare."""
        train, test = (
            self.scaler.transform(images)
            for images in (self.data.train_images, self.data.test_images)
        )
        for number in range(1, count + 1):
            self.network.partial_fit(train, self.data.train_labels, classes=CLASSES)
            likelihood = self.network.predict_proba(test)
            loss = log_loss(self.data.test_labels, likelihood, labels=CLASSES)
            accuracy = accuracy_score(self.data.test_labels, likelihood.argmax(axis=1))
            yield Epoch(number, float(loss), float(accuracy))

    def model(self):
        """Scaler and network as one: raw images in, digits out."""
        return make_pipeline(self.scaler, self.network)


def evaluate(model, data: Data) -> dict[str, float]:
    """The metrics that a run is judged by."""
    predicted = model.predict(data.test_images)
    return {
        "accuracy": float(accuracy_score(data.test_labels, predicted)),
        "macro_f1": float(f1_score(data.test_labels, predicted, average="macro")),
    }


def save(model, metrics: dict[str, float], folder: str = "model") -> Path:
    """Writes the model into `folder`, and the metrics where Trainyard reads them."""
    path = Path(folder) / "digits.joblib"
    path.parent.mkdir(parents=True, exist_ok=True)
    joblib.dump(model, path)
    Path("metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    return path
