"""The published description of the HTTP API, as OpenAPI 3.1; served under /openapi.json."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

_ERROR = {"$ref": "#/components/responses/Error"}


def description() -> dict[str, Any]:
    """A JSON document that describes every route."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edgetam-label: Label Studio ML backend",
            "version": _version(),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Segments images and tracks objects through video for Label Studio.",
        },
        "security": [{}, {"basic": []}, {"bearer": []}],
        "paths": {
            "/": {"get": _get("The same as /health, behind the door.", "Health")},
            "/health": {
                "get": {**_get("Alive, and how far the model is.", "Health"), "security": []}
            },
            "/setup": {"post": _post("A project connects.", "Setup", "SetupAnswer")},
            "/predict": {"post": _post("Prompts in, regions out.", "Predict", "PredictAnswer")},
            "/webhook": {
                "post": _post("Annotations were saved or deleted.", "Webhook", "Outcome", "201")
            },
            "/versions": {"get": _get("Model versions.", "Versions")},
            "/metrics": {
                "get": {
                    "summary": "Prometheus metrics.",
                    "responses": {
                        "200": {
                            "description": "Text exposition format.",
                            "content": {"text/plain": {"schema": {"type": "string"}}},
                        },
                        "401": _ERROR,
                    },
                }
            },
            "/openapi.json": {"get": _get("This description.", "Anything")},
            "/jobs": {"get": _get("Tracks and fine-tunes of this server.", "Jobs")},
            "/jobs/{id}": {
                "parameters": [
                    {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
                ],
                "get": _get("Progress of a job.", "Job", "404"),
                "delete": {
                    "summary": "Cancel a job; what a track has is kept.",
                    "responses": {
                        "202": _json("Job", "The job as it is now."),
                        "401": _ERROR,
                        "404": _ERROR,
                    },
                },
            },
        },
        "components": {
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
            "responses": {"Error": _json("Error", "A sentence that says what to do.")},
            "schemas": _schemas(),
        },
    }


def _version() -> str:
    try:
        return version("edgetam-label")
    except PackageNotFoundError:
        return "0"


def _json(schema: str, text: str) -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{schema}"}
    return {"description": text, "content": {"application/json": {"schema": reference}}}


def _get(summary: str, schema: str, *errors: str) -> dict[str, Any]:
    responses = {"200": _json(schema, summary), "401": _ERROR, **dict.fromkeys(errors, _ERROR)}
    if schema == "Health":
        responses["503"] = _json("Health", "The model cannot be loaded.")
    return {"summary": summary, "responses": responses}


def _post(summary: str, takes: str, gives: str, status: str = "200") -> dict[str, Any]:
    errors = dict.fromkeys(("400", "401", "409", "413", "422", "429", "502", "503"), _ERROR)
    return {
        "summary": summary,
        "requestBody": {"required": True, **_content(takes)},
        "responses": {status: _json(gives, summary), **errors},
    }


def _content(schema: str) -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{schema}"}
    return {"content": {"application/json": {"schema": reference}}}


def _schemas() -> dict[str, Any]:
    text, number, whole = {"type": "string"}, {"type": "number"}, {"type": "integer"}
    maybe_object = {"type": ["object", "null"]}
    region = {
        "type": "object",
        "properties": {
            "id": text,
            "type": {
                "enum": [
                    "keypointlabels",
                    "rectanglelabels",
                    "videorectangle",
                    "keypoint",
                    "rectangle",
                ]
            },
            "from_name": text,
            "to_name": text,
            "is_positive": {"type": "boolean"},
            "original_width": whole,
            "original_height": whole,
            "image_rotation": {"enum": [0, 90, 180, 270]},
            "value": {"type": "object"},
        },
    }
    task = {
        "type": "object",
        "required": ["data"],
        "properties": {"id": whole, "data": {"type": "object"}, "drafts": {"type": "array"}},
    }
    context = {
        "type": ["object", "null"],
        "properties": {
            "result": {"type": "array", "items": region},
            "event": {
                "enum": [
                    "capabilities",
                    "prewarm",
                    "track",
                    "track_progress",
                    "track_cancel",
                    "release",
                ]
            },
            "frame": whole,
            "time": number,
            "window": whole,
            "direction": {"enum": ["forward", "backward", "both"]},
            "session_id": text,
        },
    }
    result = {
        "type": "object",
        "properties": {"model_version": text, "score": number, "result": {"type": "array"}},
    }
    return {
        "Anything": {"type": "object"},
        "Error": {"type": "object", "required": ["error"], "properties": {"error": text}},
        "Health": {
            "type": "object",
            "properties": {
                "status": {"enum": ["UP", "DOWN"]},
                "model_class": text,
                "model_version": text,
                "model": {"enum": ["loading", "ready", "failed"]},
                "error": {"type": ["string", "null"]},
            },
        },
        "Setup": {
            "type": "object",
            "properties": {
                "project": text,
                "schema": text,
                "hostname": text,
                "access_token": text,
                "extra_params": maybe_object,
            },
        },
        "SetupAnswer": {
            "type": "object",
            "required": ["model_version"],
            "properties": {
                "model_version": text,
                "problems": {"type": "array", "items": text},
            },
        },
        "Predict": {
            "type": "object",
            "required": ["tasks"],
            "properties": {
                "tasks": {"type": "array", "items": task},
                "project": text,
                "label_config": text,
                "params": {"type": ["object", "null"], "properties": {"context": context}},
            },
        },
        "PredictAnswer": {
            "type": "object",
            "required": ["results"],
            "properties": {"results": {"type": "array", "items": result}},
        },
        "Webhook": {"type": "object", "required": ["action"], "properties": {"action": text}},
        "Outcome": {
            "type": "object",
            "required": ["status", "count"],
            "properties": {"status": text, "count": whole, "job": text},
        },
        "Versions": {
            "type": "object",
            "properties": {"versions": {"type": "array", "items": text}},
        },
        "Job": {
            "type": "object",
            "required": ["id", "kind", "state", "done", "total", "error"],
            "properties": {
                "id": text,
                "kind": {"enum": ["track", "training"]},
                "session": text,
                "objects": {"type": "array", "items": whole},
                "state": {"enum": ["queued", "running", "done", "failed", "cancelled"]},
                "done": whole,
                "total": {"type": ["integer", "null"]},
                "frames_per_second": {"type": ["number", "null"]},
                "error": {"type": ["string", "null"]},
                "project": text,
                "phase": {"enum": ["export", "finetune"]},
                "before": maybe_object,
                "after": maybe_object,
                "weights": {"type": ["string", "null"]},
                "log": text,
            },
        },
        "Jobs": {
            "type": "object",
            "properties": {
                "jobs": {"type": "array", "items": {"$ref": "#/components/schemas/Job"}}
            },
        },
    }
