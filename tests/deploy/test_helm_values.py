"""Values that the chart refuses: by its schema, or since they make no sense together."""

from typing import Any

import helm_python as helm
import pytest
from rendered_chart import render


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"gpu": {"count": "two"}}, "at '/gpu/count': got string, want integer"),
        ({"gpu": {"cuont": 2}}, "at '/gpu': additional properties 'cuont' not allowed"),
        ({"replica": 2}, "additional properties 'replica' not allowed"),
        ({"replicas": -1}, "at '/replicas': minimum: got -1, want 0"),
        ({"model": {"from": "s3"}}, "at '/model/from': value must be one of 'shipped', 'volume', 'hub'"),
        ({"model": {"volume": {"hostPath": "models"}}}, "at '/model/volume/hostPath': 'models' does not match"),
        ({"server": {"drainTimeout": "30s"}}, "at '/server/drainTimeout': got string, want number"),
        ({"server": {"flags": "--seed=1"}}, "at '/server/flags': got string, want array"),
        (
            {"monitoring": {"serviceMonitor": {"interval": "1m"}}},
            "at '/monitoring/serviceMonitor/interval': '1m' does not",
        ),
        ({"keys": {"values": [" "]}}, "at '/keys/values/0': ' ' does not match"),
        ({"sharedMemory": "8 GB"}, "at '/sharedMemory': '8 GB' does not match"),
        ({"rollingUpdate": {"maxSurge": "all"}}, "at '/rollingUpdate/maxSurge': 'all' does not match"),
        ({"autoscaling": {"by": "cpu"}}, "at '/autoscaling/by': value must be one of 'none', 'hpa', 'keda'"),
        ({"spread": {"nodes": "yes"}}, "at '/spread/nodes': value must be one of"),
        ({"probes": {"startupSeconds": 5}}, "at '/probes/startupSeconds': minimum: got 5, want 10"),
    ],
)
def test_wrong_values_are_refused_by_the_schema(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(helm.HelmValuesError) as refused:
        render(values)
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"model": {"from": "hub"}}, "model.name is empty: model.from is hub, so name the model on the hub"),
        ({"model": {"from": "volume"}}, "model.name is empty: model.from is volume, so name the model's folder"),
        ({"model": {"name": "ours"}}, "model.name is ours, but model.from is shipped"),
        ({"model": {"from": "volume", "name": "ours"}}, "model.from is volume: give one of model.volume.existingClaim"),
        (
            {"model": {"from": "volume", "name": "a", "volume": {"hostPath": "/a", "existingClaim": "b"}}},
            "model.from is volume: give one of model.volume.existingClaim",
        ),
        ({"keys": {"values": ["a"], "existingSecret": "b"}}, "keys.values and keys.existingSecret: give one of them"),
        ({"rollingUpdate": {"maxSurge": 0}}, "rollingUpdate.maxSurge and rollingUpdate.maxUnavailable are 0"),
        ({"rollingUpdate": {"maxSurge": "0%", "maxUnavailable": "0%"}}, "give one of them 1"),
        ({"gpu": {"tensorParallel": 2}}, "gpu.tensorParallel is 2, more than the 1 of gpu.count"),
        ({"autoscaling": {"minReplicas": 9}}, "autoscaling.minReplicas is 9, more than the 4"),
        ({"server": {"flags": ["--port=9000"]}}, "server.flags has --port=9000: the chart sets it"),
        ({"server": {"flags": ["--drain_timeout=9"]}}, "server.flags has --drain_timeout=9: the chart sets it"),
        ({"server": {"flags": ["--uds=/tmp/s"]}}, "server.flags has --uds=/tmp/s: the chart sets it"),
        ({"server": {"flags": ["--config", "a.yaml"]}}, "server.flags has --config: the chart sets it"),
        ({"server": {"flags": ["--shutdown-timeout=9"]}}, "server.flags has --shutdown-timeout=9: the chart sets it"),
    ],
)
def test_values_that_make_no_sense_together_are_refused(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(helm.HelmRenderError) as refused:
        render(values)
    assert complaint in str(refused.value)
