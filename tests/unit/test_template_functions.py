"""CloudFormation's functions: what each comes to, and what is certain while some values are not known."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covalent_cirro.deployment.template_functions import (
    UNKNOWN,
    ParameterNames,
    Reference,
    TemplateError,
    as_text,
    broken_rules,
    evaluate,
    holds,
    parameter_mistake,
    references,
)

TEMPLATE: dict[str, Any] = {
    "Parameters": {
        "Name": {"Type": "String"},
        "Count": {"Type": "Number"},
        "Zones": {"Type": "CommaDelimitedList"},
        "Missing": {"Type": "String"},
    },
    "Mappings": {"Sizes": {"eu-west-1": {"Small": "1", "Large": ["8", "16"]}}},
    "Conditions": {
        "IsBig": {"Fn::Equals": [{"Ref": "Name"}, "big"]},
        "IsNot": {"Fn::Not": [{"Condition": "IsBig"}]},
        "Depends": {"Fn::Equals": [{"Ref": "Missing"}, "x"]},
    },
}
VALUES = {"Name": "big", "Count": "3", "Zones": "a, b,c"}


class Everything(ParameterNames):
    """Names of a stack in which everything is known."""

    def ref(self, name: str) -> Any:
        """Ids of resources and pseudo parameters, too."""
        known = {"Bucket": "bucket-1", "AWS::Region": "eu-west-1"}
        return known[name] if name in known else super().ref(name)

    def attribute(self, resource: str, attribute: str) -> Any:
        """Its name."""
        return f"{resource}/{attribute}"

    def exported(self, name: str) -> Any:
        """Its name."""
        return f"exported {name}"

    def zones(self, region: str) -> Any:
        """Two."""
        return [f"{region or 'here'}a", f"{region or 'here'}b"]


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("text", "text"),
        (True, True),
        ({"Ref": "Name"}, "big"),
        ({"Ref": "Zones"}, ["a", "b", "c"]),
        ({"Ref": "Bucket"}, "bucket-1"),
        ({"Fn::GetAtt": ["Bucket", "Arn"]}, "Bucket/Arn"),
        ({"Fn::GetAtt": "Bucket.Endpoint.Port"}, "Bucket/Endpoint.Port"),
        ({"Fn::If": ["IsBig", "yes", "no"]}, "yes"),
        ({"Fn::If": ["IsNot", "yes", {"Ref": "Count"}]}, "3"),
        ({"Fn::Join": ["-", ["a", {"Ref": "Name"}, 1, True]]}, "a-big-1-true"),
        ({"Fn::Join": [",", {"Ref": "Zones"}]}, "a,b,c"),
        ({"Fn::Split": [".", "a.b.c"]}, ["a", "b", "c"]),
        ({"Fn::Split": [",", {"Fn::Join": [",", {"Ref": "Zones"}]}]}, ["a", "b", "c"]),
        ({"Fn::Select": ["1", {"Ref": "Zones"}]}, "b"),
        ({"Fn::Select": [0, ["x", "y"]]}, "x"),
        ({"Fn::Sub": "s3://${Bucket}/${Name}/*"}, "s3://bucket-1/big/*"),
        ({"Fn::Sub": "${Bucket.Arn}/${!Literal}"}, "Bucket/Arn/${Literal}"),
        ({"Fn::Sub": ["${Mine} of ${Name}", {"Mine": {"Ref": "Count"}}]}, "3 of big"),
        ({"Fn::FindInMap": ["Sizes", {"Ref": "AWS::Region"}, "Large"]}, ["8", "16"]),
        ({"Fn::ImportValue": {"Fn::Sub": "${Name}-network"}}, "exported big-network"),
        ({"Fn::GetAZs": ""}, ["herea", "hereb"]),
        ({"Fn::GetAZs": {"Ref": "AWS::Region"}}, ["eu-west-1a", "eu-west-1b"]),
        ({"Fn::Base64": "hello"}, "aGVsbG8="),
        ({"Fn::ToJsonString": {"a": {"Ref": "Name"}}}, '{"a": "big"}'),
        ({"A": {"Ref": "AWS::NoValue"}, "B": [{"Ref": "AWS::NoValue"}, 1]}, {"B": [1]}),
        ({"Ref": "Name", "Other": 1}, {"Ref": "Name", "Other": 1}),
    ],
)
def test_a_function_comes_to(value: Any, result: Any) -> None:
    """As the User Guide has it (Intrinsic function reference)."""
    assert evaluate(value, Everything(TEMPLATE, VALUES)) == result


@pytest.mark.parametrize(
    "value",
    [
        {"Ref": "Missing"},
        {"Ref": "Bucket"},
        {"Fn::GetAtt": ["Bucket", "Arn"]},
        {"Fn::If": ["Depends", "yes", "no"]},
        {"Fn::If": ["IsBig", {"Ref": "Missing"}, "no"]},
        {"Fn::Join": ["-", ["a", {"Ref": "Missing"}]]},
        {"Fn::Split": [".", {"Ref": "Missing"}]},
        {"Fn::Select": [0, {"Fn::Split": [".", {"Ref": "Missing"}]}]},
        {"Fn::Sub": "${Name} ${Missing}"},
        {"Fn::Sub": "${Bucket.Arn}"},
        {"Fn::FindInMap": ["Sizes", {"Ref": "Missing"}, "Small"]},
        {"Fn::ImportValue": "x"},
        {"Fn::GetAZs": ""},
        {"Fn::Base64": {"Ref": "Missing"}},
        {"Fn::ToJsonString": [{"Ref": "Missing"}]},
        [1, {"Ref": "Missing"}],
        {"A": {"B": {"Ref": "Missing"}}},
    ],
)
def test_what_depends_on_an_unknown_value_is_unknown(value: Any) -> None:
    """The deployment knows parameters only."""
    assert evaluate(value, ParameterNames(TEMPLATE, VALUES)) is UNKNOWN


@pytest.mark.parametrize(
    "value",
    [
        {"Fn::Select": [5, ["a"]]},
        {"Fn::If": ["IsBig", "yes"]},
        {"Fn::If": ["Undeclared", "yes", "no"]},
        {"Fn::FindInMap": ["Sizes", "eu-west-1", "Tiny"]},
        {"Fn::Join": "-"},
        {"Fn::Join": ["-", {"Ref": "Name"}]},
        {"Fn::Select": [0, {"Ref": "Name"}]},
        {"Fn::Split": [1]},
    ],
)
def test_a_function_in_a_wrong_form_is_an_error(value: Any) -> None:
    """With CloudFormation's words at its beginning, never a wrong value."""
    with pytest.raises(TemplateError, match=r"^Template (validation )?error: "):
        evaluate(value, ParameterNames(TEMPLATE, VALUES))


@pytest.mark.parametrize(
    ("condition", "result"),
    [
        (True, True),
        ({"Condition": "IsBig"}, True),
        ({"Condition": "IsNot"}, False),
        ({"Condition": "Depends"}, UNKNOWN),
        ({"Fn::Equals": [{"Ref": "Count"}, 3]}, True),
        ({"Fn::Equals": ["true", True]}, True),
        ({"Fn::And": [{"Condition": "IsNot"}, {"Condition": "Depends"}]}, False),
        ({"Fn::And": [{"Condition": "IsBig"}, {"Condition": "Depends"}]}, UNKNOWN),
        ({"Fn::Or": [{"Condition": "IsBig"}, {"Condition": "Depends"}]}, True),
        ({"Fn::Or": [{"Condition": "IsNot"}, {"Condition": "Depends"}]}, UNKNOWN),
        ({"Fn::Not": [{"Condition": "Depends"}]}, UNKNOWN),
        ({"Fn::Contains": [["big", "small"], {"Ref": "Name"}]}, True),
        ({"Fn::Contains": [{"Ref": "Zones"}, "d"]}, False),
        ({"Fn::Contains": [["x"], {"Ref": "Missing"}]}, UNKNOWN),
    ],
)
def test_a_condition_holds(condition: Any, result: Any) -> None:
    """Or not, or that is not known."""
    assert holds(condition, ParameterNames(TEMPLATE, VALUES)) is result


@pytest.mark.parametrize(
    "condition", ["yes", {"Ref": "Name"}, {"Fn::Equals": ["a"], "Fn::Not": []}, {"Condition": "No"}]
)
def test_what_is_no_condition_is_an_error(condition: Any) -> None:
    """Also one that the template does not have."""
    with pytest.raises(TemplateError, match="Template validation error"):
        holds(condition, ParameterNames(TEMPLATE, VALUES))


LEAVES = st.sampled_from(
    ["x", "y", {"Ref": "P"}, {"Ref": "Q"}, {"Fn::Sub": "${P}"}, {"Fn::Join": ["", [{"Ref": "Q"}]]}]
)
CONDITIONS = st.recursive(
    st.tuples(LEAVES, LEAVES).map(lambda pair: {"Fn::Equals": list(pair)}),
    lambda inner: st.one_of(
        inner.map(lambda each: {"Fn::Not": [each]}),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: {"Fn::And": parts}),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: {"Fn::Or": parts}),
    ),
    max_leaves=6,
)


@given(condition=CONDITIONS, known=st.dictionaries(st.sampled_from("PQ"), st.sampled_from("xy")))
def test_what_is_certain_with_some_values_stays_so_with_all(condition: Any, known: dict[str, str]) -> None:
    """What the deployment says before it asks AWS is what CloudFormation, which knows all values, comes to."""
    template = {"Parameters": {"P": {"Type": "String"}, "Q": {"Type": "String"}}}
    early = holds(condition, ParameterNames(template, known))
    late = {
        holds(condition, ParameterNames(template, {"P": p, "Q": q, **known})) for p in ("x", "y") for q in ("x", "y")
    }
    assert UNKNOWN not in late
    assert early is UNKNOWN or late == {early}


def test_a_rule_that_does_not_hold_is_told() -> None:
    """Those whose condition is not met, and those that need an unknown value, are left out."""
    fails = {"Assert": {"Fn::Equals": [{"Ref": "Name"}, "small"]}, "AssertDescription": "Name must be small."}
    unknown = {"Assert": {"Fn::Equals": [{"Ref": "Missing"}, "x"]}}
    rules = {
        "Fails": {"Assertions": [fails, unknown]},
        "Skipped": {"RuleCondition": {"Fn::Equals": [{"Ref": "Count"}, "4"]}, "Assertions": [fails]},
        "Bare": {"Assertions": [{"Assert": {"Fn::Not": [{"Fn::Equals": ["a", "a"]}]}}]},
    }
    found = list(broken_rules({**TEMPLATE, "Rules": rules}, ParameterNames(TEMPLATE, VALUES)))
    assert found == [("Fails", "Name must be small."), ("Bare", "Bare")]


def test_references_are_found_wherever_they_are() -> None:
    """With the path of the property; a function is no part of it, and a variable of ``Fn::Sub`` is none."""
    value = {
        "A": {"Ref": "One"},
        "B": [{"C": {"Fn::GetAtt": ["Two", "Arn"]}}],
        "D": {"Fn::Join": ["", [{"Fn::GetAtt": "Three.X.Y"}]]},
        "E": {"Fn::Sub": ["${Four.Arn}${Mine}${!Not}", {"Mine": {"Ref": "Five"}}]},
    }
    assert list(references(value, "/P")) == [
        Reference("/P/A", "One", ""),
        Reference("/P/B/C", "Two", "Arn"),
        Reference("/P/D", "Three", "X.Y"),
        Reference("/P/E", "Four", "Arn"),
        Reference("/P/E", "Five", ""),
    ]


@pytest.mark.parametrize(
    ("declaration", "value", "mistake"),
    [
        ({"Type": "String"}, "anything", None),
        ({"Type": "String"}, "x" * 4097, "must contain 0 to 4096 characters"),
        ({"Type": "String", "AllowedValues": ["a", True]}, "true", None),
        ({"Type": "String", "AllowedValues": ["a"]}, "b", "must be one of AllowedValues"),
        ({"Type": "String", "AllowedPattern": "[a-z]+"}, "a1", r"must match pattern \[a-z\]\+"),
        ({"Type": "String", "MinLength": 2, "MaxLength": 3}, "x", "must contain 2 to 3 characters"),
        ({"Type": "Number", "MinValue": 1, "MaxValue": 8}, "8", None),
        ({"Type": "Number", "MinValue": 1}, "0", "must be a number not less than 1 and not greater than inf"),
        ({"Type": "Number"}, "nan", "must be a number not less than"),
        ({"Type": "Number"}, "many", "must be a number"),
        ({"Type": "List<Number>", "MaxValue": 4}, "1, 2,5", "not greater than 4"),
        ({"Type": "CommaDelimitedList", "AllowedValues": ["a", "b"]}, "a, b", None),
        ({"Type": "CommaDelimitedList"}, ",".join("x" * 2000 for _ in range(3)), "must contain 0 to 4096 characters"),
        ({"Type": "String", "AllowedPattern": "a", "ConstraintDescription": "an a"}, "b", "constraint: an a"),
    ],
)
def test_a_parameter_takes_a_value_or_says_why_not(declaration: Any, value: str, mistake: str | None) -> None:
    """In CloudFormation's words, or in those of the template."""
    found = parameter_mistake("P", declaration, value)
    if mistake is None:
        assert found is None
    else:
        with pytest.raises(TemplateError, match=mistake):
            raise TemplateError(found)


@pytest.mark.parametrize(
    ("value", "text"), [("a", "a"), (3, "3"), (1.5, "1.5"), (True, "true"), (["a", 1, False], "a,1,false")]
)
def test_a_value_as_text(value: Any, text: str) -> None:
    """As CloudFormation compares and joins it."""
    assert as_text(value) == text
