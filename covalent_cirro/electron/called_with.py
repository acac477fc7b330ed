"""Reads what the electrons of a task group are called with, for people: texts of arguments, not their values.

Covalent stores ``str(value)`` beside each pickled value. The beginning of that text is read, and nothing is unpickled.
"""

from __future__ import annotations

import logging

from covalent_cirro.contract import tobj
from covalent_cirro.contract.protocol import Arguments
from covalent_cirro.covalent_server.assets import Group, InputParameter
from covalent_cirro.jobs import arguments

log = logging.getLogger(__name__)


def read(group: Group) -> dict[int, Arguments]:
    """Summaries of the arguments of each electron, by number. An argument whose text is not known is left out."""
    return {
        node_id: arguments.summary(
            (parameter.name, text) for parameter in parameters if (text := _text(group, parameter)) is not None
        )
        for node_id, parameters in group.parameters.items()
    }


def _text(group: Group, parameter: InputParameter) -> str | None:
    """The text of an argument, or the name of the electron whose output it is: the output may be large."""
    if parameter.electron_name:
        return arguments.output_of(parameter.electron_name)
    path = group.inputs.get(parameter.node_id)
    if path is None:  # the output of another node of the task group, which does not exist yet
        return None
    try:
        with open(path, "rb") as file:
            return tobj.read_text(file, tobj.read_header(file), arguments.TEXT_BYTES)
    except (OSError, tobj.TobjError) as error:  # the upload of the file raises what users must know
        log.debug("The text of parameter %s is not known: %s", parameter.name, error)
        return None
