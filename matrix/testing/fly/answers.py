"""Whether answers of ours are answers of Fly's, going by its description. Pure."""

from __future__ import annotations

from typing import Any

from matrix.testing.fly.schema import breaches

_BEYOND = {"Machine": ("version", "cordoned")}
"""Members that Fly's clients read and its description does not have (facts/fly.md section 3)."""

_AUTOSTOP = {False: "off", True: "stop"}


class WrongAnswer(AssertionError):
    """The emulator answered as Fly does not."""


def check_answer(schema: str, answer: Any) -> None:
    """
    @param schema: as L{matrix.testing.fly.call.Action} has it.
    @raise WrongAnswer: names what is wrong.
    """
    members = answer if schema.startswith("[") else [answer]
    for member in members:
        found = breaches(schema.strip("[]"), _described(schema.strip("[]"), member))
        if found:
            raise WrongAnswer(f"{schema}: {'; '.join(found)}")


def _described(schema: str, answer: Any) -> Any:
    """Without what Fly is known to answer although its description says otherwise."""
    if schema == "Lease" and "data" in answer:
        return answer["data"]
    if schema == "main.regionResponse":
        return {name.lower(): value for name, value in answer.items()}
    if schema == "ExtendVolumeResponse":
        return {**answer, "volume": _described("Volume", answer["volume"])}
    if schema == "OrgVolumesResponse":
        return {**answer, "volumes": [_described("Volume", one) for one in answer["volumes"]]}
    if schema == "Volume":
        return {name: value for name, value in answer.items() if value is not None}
    if schema == "Machine":
        answer = {name: value for name, value in answer.items() if name not in _BEYOND[schema]}
        for name in ("config", "incomplete_config"):
            if name in answer:
                answer[name] = described_config(answer[name])
    if schema == "MachineVersion":
        return {**answer, "user_config": described_config(answer["user_config"])}
    return answer


def described_config(config: Any) -> Any:
    """A machine's config with C{autostop} as the description has it: Fly takes and gives
    booleans, too."""
    if not isinstance(config, dict) or not isinstance(config.get("services"), list):
        return config
    return {**config, "services": [_service(service) for service in config["services"]]}


def _service(service: Any) -> Any:
    said = service.get("autostop") if isinstance(service, dict) else None
    return {**service, "autostop": _AUTOSTOP[said]} if isinstance(said, bool) else service
