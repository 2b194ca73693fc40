"""Listings of Mesa's GPU compilers (ACO for AMD, NAK for NVIDIA, IR3 for Adreno): blocks, loops, and
how many instructions of each kind a loop has. tools/gpu-report counts with it."""
import re

KINDS = ("multiply-add", "vector", "shared", "memory", "scalar")


def _aco_blocks(text):
    """Blocks of instructions and their successors."""
    blocks, names = [], {}
    for line in text.splitlines():
        code = line.split(";")[0].strip()
        label = re.match(r"^(BB\d+):", code)
        if label:
            names[label.group(1)] = len(blocks)
            blocks.append([])
        elif code and blocks:
            blocks[-1].append(code)
    successors = []
    for number, block in enumerate(blocks):
        targets = [names[t] for code in block
                   for t in re.findall(r"^s_c?branch\w*\s+(BB\d+)", code) if t in names]
        # Padding may follow a jump.
        ends = any(re.match(r"^s_(branch|endpgm|setpc)", code) for code in block)
        if not ends and number + 1 < len(blocks):
            targets.append(number + 1)
        successors.append(targets)
    return blocks, successors


def _nak_blocks(text):
    blocks, successors = [], []
    for line in text.splitlines():
        end = re.match(r"^\} -> \[([\d, ]*)\]", line)
        code = line.split("//")[0].strip()
        if re.match(r"^block\S* \d+", line):
            blocks.append([])
        elif end:
            successors.append([int(n) for n in re.findall(r"\d+", end.group(1))])
        elif code and len(blocks) > len(successors):
            blocks[-1].append(code)
    return blocks, successors


_IR3_CODE = re.compile(r"^((?:\(\w+\)\s*)*)([a-z][\w.]*)(?:\s+(.*))?$")
_IR3_ENDS = re.compile(r"^(jump|br\w*|getone|getlast|shps|end)$")


def _ir3_blocks(text):
    blocks, names = [[]], {}
    for line in text.splitlines():
        label, code = re.match(r"^(l\d+):", line), _IR3_CODE.match(line.strip())
        before = _IR3_CODE.match(blocks[-1][-1]) if blocks[-1] else None
        if label or (code and before and _IR3_ENDS.match(before.group(2))):
            blocks.append([])
        if label:
            names[label.group(1)] = len(blocks) - 1
        elif code:
            blocks[-1].append(code.group(0))
    successors = []
    for number, block in enumerate(blocks):
        last = _IR3_CODE.match(block[-1]) if block else None
        jumps = last and _IR3_ENDS.match(last.group(2))
        targets = re.findall(r"#(l\d+)", block[-1]) if jumps else []
        targets = [names[target] for target in targets if target in names]
        if not (last and last.group(2) in ("jump", "end")) and number + 1 < len(blocks):
            targets.append(number + 1)
        successors.append(targets)
    return blocks, successors


def _aco_kinds(code):
    """The kinds of an instruction; of both halves of one that does two things at once."""
    for part in code.split("::"):
        name = part.split()[0]
        if name.startswith("v_"):
            is_fma = re.match(r"v_(dual_|pk_)?(fma|fmac|mad|mac|fmaak|fmamk)_?(legacy_)?f32", name)
            yield "multiply-add" if is_fma else "vector"
        elif name.startswith("ds_"):
            yield "shared"
        elif name.startswith(("buffer_", "global_", "flat_", "scratch_")):
            yield "memory"
        else:
            yield "scalar"


_NAK_CONTROL = re.compile(r"^(bra|bssy|bsync|bclear|break|nop|exit|bar|membar|warpsync|depbar|yield)"
                          r"(\.|$)")


def _nak_kinds(code):
    match = re.match(r"^(?:@!?\w+\s+)?(?:(.*?)\s+= )?([a-z]\S*)", code)
    if not match:
        return
    target, name = match.group(1) or "", match.group(2)
    if name.startswith("ffma"):
        yield "multiply-add"
    elif re.match(r"^(ld|st|atom)\.shared|^(lds|sts)\b", name):
        yield "shared"
    elif re.match(r"^(ld|st|atom|ldc|ldg|stg)\b", name):
        yield "memory"
    elif _NAK_CONTROL.match(name) or re.match(r"^u[rp]\d", target):
        yield "scalar"
    else:
        yield "vector"


_IR3_CONTROL = re.compile(r"^(nop|jump|br|bar|fence|pred|getone|getlast|sh[ep]|sleep|end)")


def _ir3_kinds(code):
    """Of each repetition: "(rpt1)" is one more."""
    flags, name, operands = _IR3_CODE.match(code).groups()
    repeated = re.search(r"\(rpt(\d)\)", flags)
    for _ in range(1 + int(repeated.group(1) if repeated else 0)):
        if name == "mad.f32":
            yield "multiply-add"
        elif re.match(r"^(ld|st)l", name):
            yield "shared"
        elif re.match(r"^(isam|ld|st|resinfo|atomic)", name):
            yield "memory"
        elif _IR3_CONTROL.match(name) or re.match(r"^u[rp]\d", operands or ""):
            yield "scalar"
        else:
            yield "vector"


def _dominators(successors, before):
    """For each block that can be reached, the set of blocks on every way to it."""
    seen, todo = {0}, [0]
    while todo:
        new = [t for t in successors[todo.pop()] if t not in seen]
        seen.update(new)
        todo.extend(new)
    dominators = {block: set(seen) for block in seen}
    dominators[0] = {0}
    changed = True
    while changed:
        changed = False
        for block in sorted(seen - {0}):
            ways = [dominators[b] for b in before[block] if b in seen]
            found = set.intersection(*ways) | {block}
            changed = changed or found != dominators[block]
            dominators[block] = found
    return dominators


def _natural_loops(successors):
    """Sets of blocks, one for each block that dominates one that jumps to it."""
    before = [[] for _ in successors]
    for block, targets in enumerate(successors):
        for target in targets:
            before[target].append(block)
    loops = {}
    dominators = _dominators(successors, before)
    for end in dominators:
        for head in set(successors[end]) & dominators[end]:
            body, todo = {head, end}, [end]
            while todo:
                block = todo.pop()
                new = [b for b in before[block] if b not in body] if block != head else []
                body.update(new)
                todo.extend(new)
            loops.setdefault(head, set()).update(body)
    return list(loops.values())


class Loop:
    """counts: of the blocks that are in no loop inside this one; outer: the loop around it."""

    def __init__(self, counts, outer):
        self.counts, self.outer = counts, outer

    def share(self, turns=None):
        """Multiply-adds among vector instructions; of one turn of the loop around it, in which this
        one turns `turns` times, where there is one."""
        total = {kind: self.counts[kind] for kind in KINDS}
        if turns and self.outer:
            for kind in KINDS:
                total[kind] = total[kind] * turns + self.outer.counts[kind]
        vector = total["multiply-add"] + total["vector"]
        return total["multiply-add"] / vector if vector else 0.0


_FORMS = {"ACO": (_aco_blocks, _aco_kinds), "NAK": (_nak_blocks, _nak_kinds),
          "IR3": (_ir3_blocks, _ir3_kinds)}


def _form_of(text):
    if re.search(r"^BB\d+:", text, re.M):
        return "ACO"
    return "NAK" if re.search(r"^block\S* \d+", text, re.M) else "IR3"


def inner_loop(text):
    """The loop that itself has the most multiply-adds, or None."""
    split, kinds = _FORMS[_form_of(text)]
    blocks, successors = split(text)
    if len(blocks) != len(successors):
        raise ValueError("a listing of a form unknown here")
    bodies = sorted(_natural_loops(successors), key=len)
    loops = [Loop(dict.fromkeys(KINDS, 0), None) for _ in bodies]
    for number, body in enumerate(bodies):
        around = [n for n in range(number + 1, len(bodies)) if body < bodies[n]]
        loops[number].outer = loops[around[0]] if around else None
    for number, block in enumerate(blocks):
        home = next((loop for loop, body in zip(loops, bodies) if number in body), None)
        for code in block if home else []:
            for kind in kinds(code):
                home.counts[kind] += 1
    found = max(loops, key=lambda loop: loop.counts["multiply-add"], default=None)
    return found if found and found.counts["multiply-add"] else None
