"""What can be wrong with a model that somebody sends."""

from __future__ import annotations

from trtfarm.errors.base import InvalidRequestError


class ModelError(InvalidRequestError):
    """The model cannot be read."""

    code = "ONNX_PARSE_ERROR"


class NotOnnxError(ModelError):
    """The file is not an ONNX model."""

    code = "NOT_ONNX"


class InvalidGraphError(ModelError):
    """The ONNX graph is not valid."""

    code = "ONNX_INVALID_GRAPH"


class ExternalDataError(ModelError):
    """The model's external data is missing or not allowed."""

    code = "EXTERNAL_DATA_INVALID"


class ExternalDataMissingError(ExternalDataError):
    """The model names external data that was not given."""

    code = "EXTERNAL_DATA_MISSING"


class ExternalDataPathError(ExternalDataError, ValueError):
    """The model places external data outside its own folder."""

    code = "EXTERNAL_DATA_FORBIDDEN_PATH"


class ExternalDataKeyError(ExternalDataError):
    """The model describes external data with a key that ONNX does not have."""

    code = "EXTERNAL_DATA_UNKNOWN_KEY"


class ExternalDataRangeError(ExternalDataError):
    """The model reads external data beyond the end of the file."""

    code = "EXTERNAL_DATA_RANGE"


class OnnxTruncatedError(ModelError):
    """The file is the beginning of an ONNX model; the rest is missing."""

    code = "ONNX_TRUNCATED"


class OnnxTooLargeError(ModelError):
    """An ONNX file may have 2 GiB at most; larger weights belong in external data."""

    code = "ONNX_PROTO_TOO_LARGE"


class OnnxTooDeepError(ModelError):
    """The model's subgraphs are nested too deep."""

    code = "ONNX_TOO_DEEP"


class OnnxTooComplexError(ModelError):
    """The model has more parts than this farm accepts."""

    code = "ONNX_TOO_COMPLEX"


class OnnxOpsetError(ModelError):
    """The model's IR version or operator set does not exist."""

    code = "ONNX_UNSUPPORTED_OPSET"


class OnnxFunctionError(ModelError):
    """The model's functions call themselves or expand to too many nodes."""

    code = "ONNX_FUNCTION_EXPANSION"


class ResourceLimitError(ModelError):
    """Reading the model takes more memory or time than this farm allows."""

    code = "RESOURCE_LIMIT"
