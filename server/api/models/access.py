"""Answers about tokens and about the fields of a configuration."""

from typing import Any

from pydantic import BaseModel

from server.api.models.base import Model


class TokenOut(Model):
    id: str
    name: str
    prefix: str
    created_at: float
    last_used_at: float | None
    revoked_at: float | None


class TokenList(BaseModel):
    items: list[TokenOut]


class NewTokenOut(TokenOut):
    token: str
    """The secret: shown this once."""


class ConfigField(Model):
    """One field of a run's configuration."""

    name: str
    kind: str
    default: Any
    help: str
    group: str
    unit: str
    basic: bool
    nullable: bool
    choices: list[str]
    minimum: float | None
    maximum: float | None
    visible_if: dict[str, str]
    """On which values of other fields it has an effect: name -> alternatives by `|`, `*` in front of an ending, `!` in
    front for none of them."""


class ConfigFields(BaseModel):
    version: int
    items: list[ConfigField]
