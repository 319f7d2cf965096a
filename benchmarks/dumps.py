"""Dumps as Heap Connect leaves them in a bucket, of any size: for benchmarks.

A shop's users; a tenth of them were merged into others; some began to check out, some of these bought. The
first dump is full; each later one holds a share of the users anew, and a few more events.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl

NOW_MS = 1_764_028_800_000  # 2025-11-25, UTC
DAY_MS = 86_400_000
CHANGED = 50  # one user in so many is in each incremental dump
WITHOUT_IDENTITY = 20  # one user in so many that were not merged is anonymous
BOUGHT = 3  # one in so many that began to check out
EVENTS_OF = 7  # steps of so many users between two events
COPRIME = (
    6_364_136_223_846_793_005  # odd: it spreads user ids over 53 bits, as Heap's are, none of them twice
)
PROCESSES = 2


@dataclass(frozen=True)
class Size:
    users: int
    migrations: int
    parts: int
    incrementals: int
    events: int

    @property
    def first_merged(self) -> int:
        """The users from this one on were merged into others."""
        return self.users - self.migrations


def make_dumps(folder: Path, size: Size) -> Path:
    """Write all dumps, unless they are there as a whole; return where they are."""
    root = folder / ("heap-connect-" + "-".join(map(str, vars(size).values())))
    done = root / "complete"
    if done.exists():
        return root
    shutil.rmtree(root, ignore_errors=True)
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        for number in range(1 + size.incrementals):
            write_dump(
                root, 9 + 2 * number, number, size, pool
            )  # 9, 11, 13: in the order of numbers, not of names
    done.touch()
    return root


def write_dump(root: Path, dump_id: int, number: int, size: Size, pool) -> None:
    users_parts = size.parts if number == 0 else 2
    parts = {
        "users": [partial(users, size, number, part, users_parts) for part in range(users_parts)],
        "user_migrations": [partial(migrations, size)],
        "checkout_begin": [partial(checkouts, size, number)],
        "purchase": [partial(purchases, size, number)],
    }
    tables = []
    for name, makers in parts.items():
        files = [f"sync_{dump_id}/{name}/part-{part:05d}-guid-c000.avro" for part in range(len(makers))]
        (root / f"sync_{dump_id}" / name).mkdir(parents=True, exist_ok=True)
        columns = pool.starmap(write_part, zip([root / file for file in files], makers, strict=True))
        tables.append(
            {
                "name": name,
                "columns": columns[0],
                "files": [f"s3://heap-rs3-shop/{file}" for file in files],
                "incremental": number > 0 and name != "user_migrations",
            }
        )
    (root / "manifests").mkdir(exist_ok=True)
    manifest = {"dump_id": dump_id, "tables": tables, "property_definitions": ""}
    (root / "manifests" / f"sync_{dump_id}.json").write_text(json.dumps(manifest))


def write_part(file: Path, make) -> list[str]:
    rows = make()
    rows.write_avro(file, compression="snappy", name="topLevelRecord")
    return rows.columns


def users(size: Size, number: int, part: int, parts: int) -> pl.DataFrame:
    """Some users; in a later dump each CHANGED-th, another one each time, with what is new of them."""
    first, end = part * size.users // parts, (part + 1) * size.users // parts
    n = numbers(first, end) if number == 0 else numbers(first + number, end, CHANGED)
    person = n.cast(pl.String).str.zfill(12)
    anonymous = (n >= size.first_merged) | (n % WITHOUT_IDENTITY == 0)
    named = pl.DataFrame({"n": n, "person": person, "anonymous": anonymous})
    return named.select(
        user_id=ids(pl.col("n")),
        identity=pl.when(~pl.col("anonymous")).then("customer-" + pl.col("person")),
        handle=pl.when(~pl.col("anonymous")).then("shopper " + pl.col("person")),
        email=pl.when(~pl.col("anonymous")).then("shopper" + pl.col("person") + "@example.com"),
        joindate=NOW_MS - (pl.col("n") % 1_000 + 30) * DAY_MS,
        last_modified=NOW_MS - (29 - number) * DAY_MS + pl.col("n") % DAY_MS,
        initial_browser=pl.lit("Chrome 142"),
        initial_referrer="https://www.example.com/landing/" + (pl.col("n") % 997).cast(pl.String),
        country=pl.when(pl.col("n") % 3 == 0).then(pl.lit("Germany")).otherwise(pl.lit("Norway")),
        orders=pl.col("n") % 17 + number,
    )


def migrations(size: Size) -> pl.DataFrame:
    """Who was merged into whom, as one table of all times."""
    n = numbers(size.first_merged, size.users)
    return pl.DataFrame({"n": n}).select(
        from_user_id=ids(pl.col("n")), to_user_id=ids(pl.col("n") % size.first_merged), time=NOW_MS - DAY_MS
    )


def checkouts(size: Size, number: int) -> pl.DataFrame:
    return events(size, number, numbers(0, size.events), "/checkout")


def purchases(size: Size, number: int) -> pl.DataFrame:
    return events(size, number, numbers(0, size.events, BOUGHT), "/thanks")


def events(size: Size, number: int, n: pl.Series, page: str) -> pl.DataFrame:
    """Events over 60 days; a user who was merged has his under the old id."""
    who = (pl.col("n") + number * size.events) * EVENTS_OF % size.users
    return pl.DataFrame({"n": n}).select(
        event_id=pl.col("n") + number * size.events,
        user_id=ids(who),
        session_id=pl.col("n") // 3,
        time=NOW_MS - pl.col("n") % 60 * DAY_MS,
        path=pl.lit(page),
        cart_value=(pl.col("n") % 500).cast(pl.Float64),
    )


def numbers(first: int, end: int, step: int = 1) -> pl.Series:
    return pl.int_range(first, end, step, eager=True)


def ids(n: pl.Expr) -> pl.Expr:
    """Heap's ids of users by their number: each another one, in no order."""
    return ((n.cast(pl.UInt64) * pl.lit(COPRIME, pl.UInt64)) % pl.lit(2**53, pl.UInt64)).cast(pl.Int64)
