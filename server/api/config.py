"""`/api/v1/config`: what can be configured, and presets."""

from fastapi import APIRouter

from server.api.dependencies import SingleQuery
from server.api.models import ConfigField, ConfigFields
from server.services.requests import OWNED
from sparsify_core.config import RunConfig, iter_fields
from sparsify_core.config.run import CONFIG_VERSION

router = APIRouter(prefix="/config", tags=["config"], dependencies=[SingleQuery])


@router.get("/fields")
def list_fields() -> ConfigFields:
    """Every field of a run's configuration, as the form shows them."""
    items = [ConfigField.model_validate(spec) for spec in iter_fields(RunConfig) if spec.name not in OWNED]
    return ConfigFields(version=CONFIG_VERSION, items=items)
