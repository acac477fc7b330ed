"""What is read from the templates here is what CloudFormation reads from them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covalent_cirro.deployment import templates
from covalent_cirro.deployment.plans import PARTS
from covalent_cirro.deployment.template_functions import TemplateError
from covalent_cirro.deployment.templates import ForeseenResource
from covalent_cirro.errors import StackError
from covalent_cirro.local.emulator.formation.template_checks import check_parameters

ROOT = Path(__file__).parents[2]

SMALL: dict[str, Any] = {
    "Parameters": {"Max": {"Type": "Number"}, "Kind": {"Type": "String"}},
    "Conditions": {
        "Has": {"Fn::Not": [{"Fn::Equals": [{"Ref": "Max"}, "0"]}]},
        "Both": {"Fn::And": [{"Condition": "Has"}, {"Fn::Equals": [{"Ref": "Kind"}, "big"]}]},
        "Either": {"Fn::Or": [{"Condition": "Has"}, {"Fn::Equals": [{"Ref": "Kind"}, "big"]}]},
    },
    "Resources": {
        "Always": {"Type": "A"},
        "IfHas": {"Type": "B", "Condition": "Has"},
        "IfBoth": {"Type": "C", "Condition": "Both"},
        "IfEither": {"Type": "D", "Condition": "Either"},
    },
}


def test_a_template_comes_from_the_package() -> None:
    """Not from the working folder; an unknown one is named with those there are."""
    assert templates.body("network") == (ROOT / "infra/network.yaml").read_text("utf-8")
    with pytest.raises(
        StackError, match=r"no template '../setup'; installed are: .*compute, .*network, roles, .*storage"
    ):
        templates.body("../setup")


def test_the_wheel_has_the_templates(wheel: Path) -> None:
    """An installed package deploys without the repository."""
    with zipfile.ZipFile(wheel) as archive:
        for part in PARTS:
            assert archive.read(f"covalent_cirro/infra/{part}.yaml").decode() == templates.body(part)


def test_short_forms_are_read() -> None:
    """``!Ref``, ``!GetAtt``, ``!Condition`` and functions of lists."""
    loaded = templates.load("compute")
    assert loaded["Conditions"]["HasGpu"] == {"Fn::Or": [{"Condition": "HasGpuSpot"}, {"Condition": "HasGpuOnDemand"}]}
    assert loaded["Conditions"]["HasGpuSpot"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "GpuSpotMaxVcpus"}, "0"]}]}


@pytest.mark.parametrize(
    ("values", "made"),
    [
        ({"Max": "8", "Kind": "big"}, {"IfHas": True, "IfBoth": True, "IfEither": True}),
        ({"Max": "8", "Kind": "small"}, {"IfHas": True, "IfEither": True}),
        ({"Max": "0", "Kind": "big"}, {"IfEither": True}),
        ({"Max": "0", "Kind": "small"}, {}),
        ({"Max": "8"}, {"IfHas": True, "IfBoth": False, "IfEither": True}),
        ({"Max": "0"}, {"IfEither": False}),
        ({}, {"IfHas": False, "IfBoth": False, "IfEither": False}),
    ],
)
def test_conditions_say_what_is_made(values: dict[str, str], made: dict[str, bool]) -> None:
    """And whether that is certain already: a value that is not known yet may decide it, or not."""
    found = templates.foresee(SMALL, values)
    assert found[0] == ForeseenResource("Always", "A", True)
    assert {each.logical_id: each.certain for each in found[1:]} == made


@pytest.mark.parametrize("part", PARTS)
@given(data=st.data())
def test_possible_values_are_those_that_cloudformation_takes(part: str, data: st.DataObject) -> None:
    """Whatever is given for a parameter, here and in the emulated CloudFormation."""
    declarations = templates.parameters(templates.load(part))
    name = data.draw(st.sampled_from(sorted(declarations)))
    declaration = declarations[name]
    guesses = [
        st.text(alphabet="ab0.,-/@ ", max_size=12),
        st.integers(-5, 200_000).map(str),
        st.sampled_from(["", "m7i", "m7i.large,c7i", "g5,p3", "vpc-0123456789abcdef0", "1e3", "nan"]),
    ]
    if "AllowedPattern" in declaration:
        guesses.append(st.from_regex(declaration["AllowedPattern"], fullmatch=True))
    value = data.draw(st.one_of(guesses))
    try:
        check_parameters({name: declaration}, {name: value})
        taken = True
    except TemplateError:
        taken = False
    assert templates.is_possible(declaration, value) == taken


@pytest.mark.parametrize("part", PARTS)
def test_every_limit_of_a_parameter_is_said_in_words(part: str) -> None:
    """Whoever is refused is told what would be taken."""
    for name, declaration in templates.parameters(templates.load(part)).items():
        limited = {"AllowedValues", "AllowedPattern", "MinValue", "MaxValue"} & set(declaration)
        assert bool(templates.possible(declaration)) == bool(limited), name


def test_a_broken_rule_is_told_in_its_own_words() -> None:
    """One that needs a value which is not known is CloudFormation's to decide."""
    compute = templates.load("compute")
    [words] = templates.broken_rules(compute, {"CpuSpotMaxVcpus": "0", "CpuOnDemandMaxVcpus": "0"})
    assert "no machine to run on" in words
    assert templates.broken_rules(compute, {"CpuSpotMaxVcpus": "0", "CpuOnDemandMaxVcpus": "8"}) == []
    assert templates.broken_rules(compute, {"CpuSpotMaxVcpus": "0"}) == []
    network = templates.load("network")
    assert templates.broken_rules(network, {"ExistingVpcId": "", "Subnets": "private"}) == []
