"""Zoho's error objects: for a whole call (`ApiError`) and for one row (`row_error`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox.zoho.model import Json


class ApiError(Exception):
    """Ends a call with one top-level error object."""

    def __init__(self, status: int, code: str, message: str, details: Json | None = None) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.body = row_error(code, message, details)


class BareRefusal(Exception):
    """Ends a call with an answer without Zoho's error object."""

    def __init__(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(str(status))
        self.status = status
        self.body = body
        self.headers = headers or {}


def row_error(code: str, message: str, details: Json | None = None) -> Json:
    """The error object of one row; the same shape stands alone at the top level."""
    return {
        "code": code,
        "details": details if details is not None else {},
        "message": message,
        "status": "error",
    }


def invalid_data(details: Json, message: str = "invalid data") -> Json:
    """A value that Zoho does not accept."""
    return row_error("INVALID_DATA", message, details)


def field_details(api_name: str, index: int, **more: Any) -> Json:
    """Details that point at a field of a row, with its JSON path."""
    return {**more, "api_name": api_name, "json_path": f"$.data[{index}].{api_name}"}


def url_error() -> ApiError:
    """A path that Zoho does not serve."""
    return ApiError(404, "INVALID_URL_PATTERN", "Please check if the URL trying to access is a correct one")


def method_error() -> ApiError:
    """A path that Zoho serves, with another method."""
    return ApiError(400, "INVALID_REQUEST_METHOD", "The http request method type is not a valid one")


def module_error(index: int = 0) -> ApiError:
    """A module that the organisation does not have."""
    message = "The module name given seems to be invalid"
    return ApiError(400, "INVALID_MODULE", message, {"resource_path_index": index})


def id_error(index: int = 1) -> ApiError:
    """A record id in the path that names no record."""
    message = "the id given seems to be invalid"
    return ApiError(400, "INVALID_DATA", message, {"resource_path_index": index})


def param_error(name: str, message: str = "invalid data") -> ApiError:
    """A query parameter that is not known or has a wrong value."""
    return ApiError(400, "INVALID_DATA", message, {"param_name": name})


def missing_param(name: str) -> ApiError:
    """A query parameter that the call cannot do without."""
    message = "One of the expected parameter is missing"
    return ApiError(400, "REQUIRED_PARAM_MISSING", message, {"param_name": name})
