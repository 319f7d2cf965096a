"""What is planned where the data is, is what DuckDB plans: the same to the last bit."""

from __future__ import annotations

from airflow_provider_heapbraze.membership.entries import Target
from airflow_provider_heapbraze.membership.identity import IdentityMapping
from airflow_provider_heapbraze.membership.ledger import TargetLedger
from airflow_provider_heapbraze.membership.matching import match
from airflow_provider_heapbraze.membership.members import FileMembers, SqlMembers
from airflow_provider_heapbraze.membership.planning import Request, make_plan
from airflow_provider_heapbraze.membership.spaces import Spaces
from tests.unit.membership.databases import PostgresAccess

MAPPING = IdentityMapping("identity", "email", "email", "device", "identified")


def test_smoke(tmp_path, postgres):
    postgres.execute(
        "CREATE TABLE IF NOT EXISTS smoke (identity text, email text, device text, identified text)"
    )
    postgres.execute(
        "INSERT INTO smoke VALUES ('ann', 'a@x', 'd1', 'true'), (' bob ', NULL, NULL, '1'), (NULL, 'c@x', 'd2', '0'), ('', NULL, '', 'no'), ('zoé', 'ann', NULL, NULL)"
    )
    (tmp_path / "m.csv").write_text(
        "identity,email,device,identified\nann,a@x,d1,true\n bob ,,,1\n,c@x,d2,0\n,,,no\nzoé,ann,,\n"
    )
    access = PostgresAccess(postgres)
    here = match(FileMembers(str(tmp_path / "m.csv")), MAPPING, access, tmp_path / "here")
    there = match(
        SqlMembers("warehouse", "SELECT * FROM smoke"), MAPPING, access, tmp_path / "there", "warehouse"
    )
    print(here, there)
    assert here == there or (here.counts == there.counts and here.fingerprint == there.fingerprint)
    digests = []
    for result, engine, root in ((here, "", "here"), (there, "warehouse", "there")):
        ledger = TargetLedger(tmp_path / root, Target("cohort", {"cohort_id": "x"}), Spaces(access, engine))
        plan = make_plan(
            ledger,
            None,
            Request(
                "r",
                result,
                tmp_path / root / "matches" / result.fingerprint,
                ("external_id", "alias", "device_id"),
                "n",
                False,
                "2026-11-24",
            ),
        )
        digests.append(plan.digest)
        print(plan)
    assert digests[0] == digests[1]
