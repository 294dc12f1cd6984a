"""Trains the digits model from the command line: the same as train.ipynb, without pictures."""

import argparse

import digits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--hidden", type=int, default=64, help="units of the hidden layer"
    )
    parser.add_argument("--learning-rate", type=float, default=0.002)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    data = digits.load(options.seed)
    trainer = digits.Trainer(data, options.hidden, options.learning_rate, options.seed)
    for epoch in trainer.epochs(options.epochs):
        print(
            f"epoch {epoch.number:3}  loss {epoch.loss:.4f}  accuracy {epoch.accuracy:.4f}",
            flush=True,
        )

    metrics = digits.evaluate(trainer.model(), data)
    path = digits.save(trainer.model(), metrics)
    print(f"accuracy {metrics['accuracy']:.4f}, model in {path}")


if __name__ == "__main__":
    main()
