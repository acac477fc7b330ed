"""The model: matrix factorisation with biases, trained by squared error with two regularisers, in torch.

A rating is predicted as the product of the vectors of user and item, both of length k, plus a bias of the user, one of
the item, and a global one. With k = 0 only the biases are left.
"""

from __future__ import annotations

import os
import time

import torch
from torch import nn

EPOCHS = 10
STEPS = 30
"""Batches of an epoch, however many ratings there are: a training of more ratings has larger batches."""

START = 0.1
"""Standard deviation of the vectors before the training."""

CHUNK = 1_000_000
"""Ratings that are predicted at a time."""


class MF(nn.Module):
    """Matrix factorisation.

    Args:
        n_user: Number of users.
        n_item: Number of items.
        k: Length of the vectors.
        c_vector: How much the squares of all vectors weigh in the loss.
        c_bias: How much the squares of all biases of users and items weigh.
        mean: Where the global bias begins.
    """

    def __init__(self, n_user, n_item, k=18, c_vector=1e-6, c_bias=1e-6, mean=1.0):
        super().__init__()
        self.c_vector = c_vector
        self.c_bias = c_bias
        self.user = nn.Embedding(n_user, k)
        self.item = nn.Embedding(n_item, k)
        self.bias_user = nn.Embedding(n_user, 1)
        self.bias_item = nn.Embedding(n_item, 1)
        self.bias = nn.Parameter(torch.full((1,), float(mean)))
        for vectors in (self.user, self.item):
            nn.init.normal_(vectors.weight, std=START)
        for biases in (self.bias_user, self.bias_item):
            nn.init.zeros_(biases.weight)

    def forward(self, users, items):
        """Predicted ratings of pairs of rows, shape (pairs,)."""
        biases = self.bias + self.bias_user(users).squeeze(1) + self.bias_item(items).squeeze(1)
        return biases + (self.user(users) * self.item(items)).sum(dim=1)

    def loss(self, prediction, target):
        """Mean squared error, and the squares of all vectors and biases as much as they weigh."""
        error = nn.functional.mse_loss(prediction, target)
        vectors = self.user.weight.square().sum() + self.item.weight.square().sum()
        biases = self.bias_user.weight.square().sum() + self.bias_item.weight.square().sum()
        return error + self.c_vector * vectors + self.c_bias * biases

    def weights(self):
        """The weights as arrays: `user` (users, k), `item` (items, k), `bias_user`, `bias_item` and `bias` (1,)."""
        found = {
            "user": self.user.weight,
            "item": self.item.weight,
            "bias_user": self.bias_user.weight.squeeze(1),
            "bias_item": self.bias_item.weight.squeeze(1),
            "bias": self.bias,
        }
        return {name: weight.detach().cpu().numpy() for name, weight in found.items()}


def fit(ratings, k, c_vector, c_bias, learning_rate, seed, after_epoch=lambda epoch, model: None):
    """Train a model; the same seed gives the same model on the same machine.

    Args:
        ratings: `data.Ratings`.
        k: Length of the vectors.
        c_vector: As in `MF`.
        c_bias: As in `MF`.
        learning_rate: The largest; it rises to it and falls to nearly 0.
        seed: Seed of the first weights and of the order of the ratings.
        after_epoch: Called with the number of the epoch, from 1, and the model.
    """
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))  # a job has one vCPU: no fight for the cores
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    users, items, values = (tensor.to(device) for tensor in tensors(ratings))
    mean = values.mean().item()
    model = MF(len(ratings.user_ids), len(ratings.item_ids), k, c_vector, c_bias, mean).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=learning_rate, total_steps=EPOCHS * STEPS + 1)
    for epoch in range(1, EPOCHS + 1):
        for batch in torch.randperm(len(values), device=device).chunk(STEPS):
            loss = model.loss(model(users[batch], items[batch]), values[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        after_epoch(epoch, model)
    return model


def tensors(ratings):
    """Users, items and ratings as tensors."""
    return (
        torch.from_numpy(ratings.users).long(),
        torch.from_numpy(ratings.items).long(),
        torch.from_numpy(ratings.values),
    )


@torch.no_grad()
def rmse(model, ratings):
    """Root mean square error of the predictions of ratings."""
    device = model.bias.device
    total = 0.0
    for part in zip(*(each.split(CHUNK) for each in tensors(ratings)), strict=True):
        users, items, values = (each.to(device) for each in part)
        total += (model(users, items) - values).square().sum(dtype=torch.float64).item()
    return (total / len(ratings.values)) ** 0.5


def train(configuration, split, seed, report=lambda epoch, error: None):
    """One configuration: trained on the training part, scored on the validation part after each epoch.

    Args:
        configuration: `k`, `c_vector`, `c_bias` and `learning_rate`.
        split: `data.Split`.
        seed: As for `fit`.
        report: Called with the epoch and the error after it.

    Returns:
        The configuration, its errors by epoch, and its seconds.
    """
    started, errors = time.monotonic(), []

    def after_epoch(epoch, model):
        errors.append(rmse(model, split.validation))
        report(epoch, errors[-1])

    fit(split.train, **configuration, seed=seed, after_epoch=after_epoch)
    return {"configuration": configuration, "errors": errors, "seconds": time.monotonic() - started}


def judge(configuration, split, seed):
    """Errors on the test part: of a configuration trained on all the rest, and of two models that know no tastes."""
    rest = split.rest
    mean = float(rest.values.mean())
    return {
        "rmse": rmse(fit(rest, **configuration, seed=seed), split.test),
        "rmse_biases": rmse(fit(rest, **{**configuration, "k": 0}, seed=seed), split.test),
        "rmse_mean": float(((split.test.values - mean) ** 2).mean() ** 0.5),
    }
