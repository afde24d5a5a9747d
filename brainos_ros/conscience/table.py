"""The table of a rule set, for people."""

from brainos_ros.conscience.rules import RuleSet


def markdown(rules: RuleSet) -> str:
    """Every rule and every input of a rule set as two Markdown tables."""
    lines = ["| rule | level | actions | when | why |", "| --- | --- | --- | --- | --- |"]
    for rule in rules.rules:
        actions = ", ".join(f"`{action}`" for action in rule.actions)
        when = "always" if rule.when == "true" else f"`{rule.when}`".replace("|", "\\|")
        lines.append(f"| `{rule.id}` | {rule.level.name} | {actions} | {when} | {rule.reason} |")
    lines += ["", "| input | type | range | what |", "| --- | --- | --- | --- |"]
    for each in rules.inputs.values():
        bounds = ", ".join(each.values) if each.values else (
            f"{each.minimum:g} to {each.maximum:g} {each.unit}".rstrip()
            if each.type in ("int", "double", "doubles") else "")
        lines.append(f"| `{each.name}` | {each.type} | {bounds} | {each.text} |")
    return "\n".join(lines) + "\n"
