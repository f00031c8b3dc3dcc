"""Logging in with a one-time code, and out."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse

from server.pages.templating import render

router = APIRouter()
