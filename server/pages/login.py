"""Logging in with a one-time code, and out."""

from fastapi import APIRouter

router = APIRouter()
