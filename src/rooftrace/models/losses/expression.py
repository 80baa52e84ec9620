"""A sum of losses as it is written in a configuration.

sum       term ("+" term)*
term      [number "*"] name ["(" [argument ("," argument)*] ")"]
argument  name "=" value
value     ["-"] number | name | 'text' | "[" [value ("," value)*] "]"
"""

from __future__ import annotations

import math
import re
from typing import Any, NoReturn

import rooftrace.models._torch  # noqa: F401

# isort: split
from torch import Tensor

from rooftrace.core.config import parse_config
from rooftrace.core.errors import ConfigError
from rooftrace.models.losses.base import LOSSES, Loss

__all__ = ["LossSum", "parse_loss"]

_NUMBER = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
_TEXT = re.compile(r"\"[^\"]*\"|'[^']*'")
_TOKEN = re.compile(rf"\s*({_NUMBER.pattern}|{_NAME.pattern}|{_TEXT.pattern}|\S)")


class LossSum(Loss):
    """A weighted sum.

    Args:
        terms: weight and loss of each.
    """

    terms: tuple[tuple[float, Loss], ...]

    def check(self, classes: int) -> None:
        for _, loss in self.terms:
            loss.check(classes)

    def value(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        total = logits.new_zeros(())
        for weight, loss in self.terms:
            total = total + weight * loss.value(logits, target, valid)
        return total


def parse_loss(text: str) -> LossSum:
    """A weighted sum of registered losses, such as `"ce + 0.4*tversky(alpha=0.3, beta=0.7)"`.

    Raises:
        ConfigError: not such a sum; an unknown loss or parameter (the nearest are named); a value
            of the wrong kind or out of its range.
    """
    reader = _Reader(text)
    terms = [reader.term()]
    while not reader.at_end:
        reader.expect("+", "'+' and another loss")
        terms.append(reader.term())
    return LossSum(terms=tuple(terms))


class _Reader:
    """Takes an expression token by token."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _TOKEN.findall(text)
        self._next = 0

    @property
    def at_end(self) -> bool:
        return self._next == len(self._tokens)

    def term(self) -> tuple[float, Loss]:
        weight = 1.0
        if (number := self._take_if(_NUMBER)) is not None:
            weight = self._number(number)
            self.expect("*", f"'*' and a loss after the weight {number}")
        name = self._take(_NAME, "a loss, or WEIGHT*LOSS,")
        kind, given = LOSSES[name], self._arguments()
        if given and not kind.model_fields:
            raise ConfigError(
                f"loss = {self._text!r}: {name} takes no parameters, but {sorted(given)} came.",
                remedy=f"Write {name} alone.",
            )
        return weight, parse_config(given, kind, source=f"loss = {self._text!r}: {name}")

    def expect(self, symbol: str, expected: str) -> None:
        if not self._has(symbol):
            self._fail(expected)

    def _arguments(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if not self._has("("):
            return found
        while not self._has(")"):
            if found:
                self.expect(",", "',' or ')'")
            name = self._take(_NAME, "the name of a parameter, or ')',")
            if name in found:
                self._fail(f"{name} once, ',' and another parameter or ')',")
            self.expect("=", f"'=' after {name}")
            found[name] = self._value()
        return found

    def _value(self) -> float | str | tuple[float | str, ...]:
        if not self._has("["):
            return self._scalar()
        found: list[float | str] = []
        while not self._has("]"):
            if found:
                self.expect(",", "',' or ']'")
            found.append(self._scalar())
        return tuple(found)

    def _scalar(self) -> float | str:
        if (name := self._take_if(_NAME)) is not None:
            return name
        if (quoted := self._take_if(_TEXT)) is not None:
            return quoted[1:-1]
        sign = -1.0 if self._has("-") else 1.0
        return sign * self._number(self._take(_NUMBER, "a number, a name or a list of them"))

    def _number(self, token: str) -> float:
        number = float(token)
        if not math.isfinite(number):
            self._next -= 1
            self._fail("a finite number")
        return number

    def _has(self, symbol: str) -> bool:
        found = not self.at_end and self._tokens[self._next] == symbol
        self._next += found
        return found

    def _take_if(self, kind: re.Pattern[str]) -> str | None:
        if self.at_end or not kind.fullmatch(self._tokens[self._next]):
            return None
        self._next += 1
        return str(self._tokens[self._next - 1])

    def _take(self, kind: re.Pattern[str], expected: str) -> str:
        token = self._take_if(kind)
        return self._fail(expected) if token is None else token

    def _fail(self, expected: str) -> NoReturn:
        found = "the end" if self.at_end else repr(self._tokens[self._next])
        raise ConfigError(
            f"loss = {self._text!r}: expected {expected} but found {found}.",
            remedy='For example: loss = "0.6*ce + 0.4*tversky(alpha=0.3, beta=0.7)"',
        )
