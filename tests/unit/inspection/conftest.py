"""Looking at a model, and seeing it refused."""

import pytest

from trtfarm.errors import ModelError
from trtfarm.inspection.inspect import inspect_model


@pytest.fixture
def look(tmp_path):
    def inspect(data, *args, **kwargs):
        path = tmp_path / "model.onnx"
        path.write_bytes(data if isinstance(data, bytes) else data.SerializeToString())
        return inspect_model(path, *args, **kwargs)

    return inspect


@pytest.fixture
def refused(look):
    def check(code, data, *args, match=None, **kwargs):
        with pytest.raises(ModelError, match=match) as caught:
            look(data, *args, **kwargs)
        assert caught.value.code == code, caught.value
        return caught.value

    return check
