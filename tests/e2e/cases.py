"""The cases of a script that runs the program: each prints "ok" or what it saw, and the last line counts them."""
import time

cases = []


def case(function):
    cases.append(function)
    return function


def run_cases(wanted=(), before=None):
    """Runs all, or those named; `before` comes before each. Returns whether one failed."""
    unknown = set(wanted) - {f.__name__ for f in cases}
    if unknown:
        raise SystemExit(f"no such case: {' '.join(sorted(unknown))}")
    chosen = [f for f in cases if not wanted or f.__name__ in wanted]
    failed = 0
    for function in chosen:
        if before:
            before()
        begin = time.time()
        try:
            function()
            print(f"ok    {function.__name__} ({time.time() - begin:.1f} s)", flush=True)
        except Exception as error:  # a case that fails leaves the others to run
            failed += 1
            print(f"FAIL  {function.__name__}: {type(error).__name__}: {str(error)[:4500]}", flush=True)
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return failed > 0
