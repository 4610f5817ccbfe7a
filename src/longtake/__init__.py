"""LongTake: raw video in; filtered, captioned training shards out."""

from __future__ import annotations
