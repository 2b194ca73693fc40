"""What tests in Python share: cases are run one after the other and reported as TAP."""
import os
import traceback


def run(cases, errors=()):
    """Each case is a title, a function and its arguments; it fails by an assertion or one of the
    errors. Returns the exit status."""
    cases = list(cases)
    failed = False
    print("1..%d" % len(cases))
    for number, (title, function, *arguments) in enumerate(cases, 1):
        try:
            function(*arguments)
            print("ok %d - %s" % (number, title))
        except (AssertionError, *errors) as error:
            failed = True
            place = traceback.extract_tb(error.__traceback__)[-1]
            print("# %s:%d: %s" % (os.path.basename(place.filename), place.lineno,
                                   str(error).replace("\n", "\n# ")))
            print("not ok %d - %s" % (number, title))
    return 1 if failed else 0
