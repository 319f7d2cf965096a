"""How tasks are shown: mapped ones by their cohort, and arguments as what they are."""

from __future__ import annotations

from datetime import timedelta
from importlib import import_module

import jinja2
import pytest
from airflow.sdk import DAG

from airflow_provider_heapbraze.get_provider_info import get_provider_info
from airflow_provider_heapbraze.members import FileMembers, HeapConnectMembers, SegmentSyncMembers, SqlMembers
from airflow_provider_heapbraze.operators._airflow import LabelledOperator
from airflow_provider_heapbraze.operators.approval import BrazeCohortApprovalOperator
from airflow_provider_heapbraze.operators.cohort import (
    BrazeCohortImportOperator,
    BrazeCohortPlanOperator,
    BrazeCohortRestoreOperator,
)
from airflow_provider_heapbraze.operators.currents import BrazeCurrentsToHeapOperator
from airflow_provider_heapbraze.operators.ledger import HeapBrazeLedgerPruneOperator
from airflow_provider_heapbraze.operators.match import HeapUserMatchOperator
from airflow_provider_heapbraze.operators.segment import BrazeSegmentSizeOperator, BrazeSegmentToHeapOperator
from airflow_provider_heapbraze.operators.verify import BrazeCohortVerifyOperator
from tests.airflow.cohorts import COHORT, context

FILE = FileMembers("s3://bucket/trial.csv")
NUMBER = "7"


def labels():
    """Give each operator with arguments, and what its mapped task is shown by."""
    yield HeapUserMatchOperator, {"members": FILE}, "s3://bucket/trial.csv"
    yield HeapUserMatchOperator, {"members": SegmentSyncMembers("s3://b/landed", 1338065)}, "1338065"
    yield HeapUserMatchOperator, {"members": SqlMembers("dwh", "SELECT 1")}, NUMBER
    yield HeapUserMatchOperator, {"members": HeapConnectMembers("s3://b", "FROM users")}, NUMBER
    yield BrazeCohortPlanOperator, {**COHORT}, "cohort-1"
    yield BrazeCohortImportOperator, {**COHORT}, "cohort-1"
    yield BrazeCohortRestoreOperator, {"cohort_id": "cohort-1", "run_id": "night-1"}, "cohort-1"
    yield BrazeCohortVerifyOperator, {"cohort_id": "cohort-1", "segment_id": "segment-1"}, "cohort-1"
    yield BrazeCohortVerifyOperator, {"delivery": "attribute", "attribute": "in_one"}, "in_one"
    yield BrazeCohortApprovalOperator, {"plan": {"name": "Cohort one"}}, "Cohort one"
    yield BrazeCurrentsToHeapOperator, {"source": "s3://bucket/currents"}, "s3://bucket/currents"
    yield BrazeSegmentToHeapOperator, {"segment_id": "segment-1", "property_name": "lapsed"}, "lapsed"
    yield BrazeSegmentToHeapOperator, {"segment_name": "Lapsed buyers"}, "Lapsed buyers"
    yield BrazeSegmentSizeOperator, {"segment_id": "segment-1"}, "segment-1"
    yield HeapBrazeLedgerPruneOperator, {"ledger": "s3://bucket/heapbraze"}, "s3://bucket/heapbraze"
    yield HeapBrazeLedgerPruneOperator, {"keep_days": 7}, NUMBER


def shown(operator):
    """Render the label as Airflow does once a task has ended, well or not."""
    template = jinja2.Environment(autoescape=False).from_string(operator.map_index_template)  # noqa: S701
    return template.render({"task": operator, **context(map_index=int(NUMBER))})


@pytest.mark.parametrize(("operator_class", "arguments", "label"), list(labels()))
def test_a_mapped_task_is_shown_by_what_it_is_about(operator_class, arguments, label):
    in_a_mapped_group = operator_class(task_id="one", **arguments)
    assert shown(in_a_mapped_group) == label
    (name, value), *_ = arguments.items()
    partial = operator_class.partial(
        task_id="one", **{key: arguments[key] for key in arguments if key != name}
    )
    mapped = partial.expand(**{name: [value]})
    assert mapped.map_index_template == in_a_mapped_group.map_index_template
    assert shown(mapped.unmap({**arguments})) == label


def test_a_template_of_the_users_own_goes_before():
    own = {"map_index_template": "{{ task.cohort_name }}"}
    assert shown(BrazeCohortImportOperator(task_id="one", **COHORT, **own)) == "Cohort one"
    partial = BrazeCohortImportOperator.partial(task_id="one", cohort_name="Cohort one", **own)
    assert partial.expand(cohort_id=["one"]).map_index_template == own["map_index_template"]
    with DAG("dag", schedule=None, default_args=own):
        assert shown(BrazeCohortImportOperator(task_id="one", **COHORT)) == "Cohort one"
        mapped = BrazeCohortImportOperator.partial(task_id="two", cohort_name="Two").expand(cohort_id=["b"])
        assert mapped.map_index_template == own["map_index_template"]


def test_other_arguments_of_a_mapped_task_are_taken_as_they_are():
    partial = BrazeCohortImportOperator.partial(task_id="one", cohort_name="One", retries=3)
    mapped = partial.expand(cohort_id=["a"])
    assert (mapped.retries, mapped.execution_timeout) == (3, None)
    limited = BrazeCohortApprovalOperator.partial(task_id="two", execution_timeout=timedelta(hours=1))
    assert limited.expand(plan=[{}]).execution_timeout == timedelta(hours=1)


def test_every_operator_has_a_label():
    for group in get_provider_info()["operators"]:
        for module in map(import_module, group["python-modules"]):
            for name in (name for name in vars(module) if name.endswith("Operator") and name[0] != "_"):
                operator = getattr(module, name)
                if operator.__module__ == module.__name__:
                    assert issubclass(operator, LabelledOperator), name
                    assert operator.label is not LabelledOperator.label, name


def test_renderers_are_of_template_fields():
    for operator_class, arguments, _ in labels():
        operator = operator_class(task_id="one", **arguments)
        known = {"guards", "match", "plan"} | set(operator.template_fields)
        assert set(operator.template_fields_renderers) <= known
