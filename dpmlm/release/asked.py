"""The policy that a bundle was judged by: named to readers, and held against the one they ask for.

Whoever signs a bundle chooses its policy, and its name says nothing: only its digest does.
"""

from functools import cache

from dpmlm.release.inventory import Finding
from dpmlm.release.policy import ReleasePolicy, load_policy, policy_names


def told_policy(policy: ReleasePolicy) -> tuple[list[str], list[str]]:
    """Warnings and notes about a policy that is none of those that are shipped."""
    shipped = _shipped()
    if policy.digest in shipped.values():
        return [], []
    about = f"({policy.digest}), with {len(policy.require)} rules"
    if policy.policy in shipped:
        return [
            f"its policy calls itself {policy.policy}, and is another than the one that is shipped "
            f"under that name {about}: read policy.yaml before you trust its verdict"
        ], []
    return [], [f"its policy {policy.policy} is none of those that are shipped {about}"]


def other_policy(policy: ReleasePolicy, asked: ReleasePolicy) -> list[Finding]:
    """A finding where a bundle was judged by another policy than a reader asks for."""
    if policy.digest == asked.digest:
        return []
    what = (
        f"it was judged by policy {policy.policy} ({policy.digest}), and {asked.policy} "
        f"({asked.digest}) is asked for"
    )
    ask = "ask the signer for a release under that policy, or read this one and ask for it"
    return [Finding("policy.yaml", "whole file", what, ask)]


@cache
def _shipped() -> dict[str, str]:
    """Names in the shipped policies, and their digests."""
    found = [load_policy(name) for name in policy_names()]
    return {policy.policy: policy.digest for policy in found}
