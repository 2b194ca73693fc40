/*
 * model_expr.c: the values of scalars: "${width * 2}" is the value of the expression, "enc${level}"
 * is text with the value put in, anything else is itself (a number when it reads as one).
 *
 *     comparison := sum [("==" | "!=" | "<" | "<=" | ">" | ">=") sum]      1 or 0
 *     sum        := product {("+" | "-") product}
 *     product    := sign {("*" | "/" | "%") sign}
 *     sign       := "-" sign | power
 *     power      := primary [("^" | "**") sign]                            from the right
 *     primary    := number | 'text' | variable | function "(" comparison, ... ")"
 *                 | "(" comparison ")"
 *
 * Numbers are doubles; a result that is not finite or not below MODEL_NUMBER_MAX is a mistake.
 */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/model_reader.h"

#define NESTING_MAX 50
#define ARGUMENTS_MAX 8

struct expression {
    struct reader *reader;
    const struct tree *scalar; /* where it stands */
    const struct variable *scope;
    const char *at, *end;
    int nesting;
    bool failed;
};

static const struct model_value broken = {.kind = MODEL_BROKEN};

static struct model_value number_value(double number) {
    return (struct model_value){.kind = MODEL_NUMBER, .number = number};
}

static bool name_start(char c) {
    return isalpha((unsigned char)c) || c == '_';
}

static bool name_part(char c) {
    return isalnum((unsigned char)c) || c == '_';
}

bool expr_is_name(const char *word) {
    if (!name_start(word[0]))
        return false;
    for (; *word != '\0'; word++)
        if (!name_part(*word))
            return false;
    return true;
}

/* Place in the file of a place in a scalar's text; exact for scalars of one line without escapes.
 */
static struct diag_pos position(const struct tree *scalar, const char *at) {
    struct diag_pos pos = scalar->pos;
    if (pos.line == 0)
        return pos;
    pos.column += scalar->quoted;
    for (const char *c = scalar->text; c < at; c++) {
        if (*c == '\n')
            return scalar->pos;
        pos.column += ((unsigned char)*c & 0xc0) != 0x80;
    }
    return pos;
}

/* One mistake per expression: the first. True when it is the one to report. */
static bool fail(struct expression *expression) {
    const bool first = !expression->failed;
    expression->failed = true;
    return first;
}

#define FAIL(expression, at, ...)                                                                  \
    (fail(expression)                                                                              \
         ? reader_error((expression)->reader, position((expression)->scalar, (at)), __VA_ARGS__)   \
         : (void)0)

static void skip_space(struct expression *expression) {
    while (expression->at < expression->end && isspace((unsigned char)*expression->at))
        expression->at++;
}

/* Takes the token if it is next. */
static bool take(struct expression *expression, const char *token) {
    const size_t length = strlen(token);
    skip_space(expression);
    if ((size_t)(expression->end - expression->at) < length ||
        strncmp(expression->at, token, length) != 0)
        return false;
    expression->at += length;
    return true;
}

static struct model_value comparison(struct expression *expression);

/* A number the language can hold, or the mistake. */
static struct model_value checked(struct expression *expression, double number, const char *at) {
    if (isfinite(number) && fabs(number) < MODEL_NUMBER_MAX)
        return number_value(number);
    FAIL(expression, at, "the result of this expression is too large or no number");
    return broken;
}

/* The number in a value, for arithmetic. */
static bool as_number(struct expression *expression, struct model_value value, const char *at,
                      double *out) {
    if (value.kind == MODEL_BROKEN)
        expression->failed = true;
    if (value.kind == MODEL_TEXT)
        FAIL(expression, at, "\"%.60s\" is text; arithmetic needs a number", value.text);
    *out = value.number;
    return value.kind == MODEL_NUMBER;
}

static const char *const function_names[] = {"min",  "max",  "floor", "ceil", "round",
                                             "sqrt", "log2", "abs",   "if"};

enum function { F_MIN, F_MAX, F_FLOOR, F_CEIL, F_ROUND, F_SQRT, F_LOG2, F_ABS, F_IF };

static struct model_value apply_numbers(struct expression *expression, enum function function,
                                        const double *x, size_t count, const char *at) {
    double result = x[0];
    switch (function) {
    case F_MIN:
    case F_MAX:
        for (size_t i = 1; i < count; i++)
            result = function == F_MIN ? fmin(result, x[i]) : fmax(result, x[i]);
        break;
    case F_FLOOR:
        result = floor(x[0]);
        break;
    case F_CEIL:
        result = ceil(x[0]);
        break;
    case F_ROUND:
        result = floor(x[0] + 0.5);
        break;
    case F_SQRT:
        result = sqrt(x[0]);
        break;
    case F_LOG2:
        result = log2(x[0]);
        break;
    default:
        result = fabs(x[0]);
        break;
    }
    return checked(expression, result, at);
}

static struct model_value apply(struct expression *expression, enum function function,
                                const struct model_value *values, size_t count, const char *at) {
    const bool many = function == F_MIN || function == F_MAX;
    const size_t wanted = function == F_IF ? 3 : 1;
    if (count == 0 || (!many && count != wanted)) {
        FAIL(expression, at, "%s takes %s", function_names[function],
             many               ? "at least one number"
             : function == F_IF ? "three values: if(condition, then, else)"
                                : "one number");
        return broken;
    }
    double x[ARGUMENTS_MAX];
    if (function == F_IF) {
        if (!as_number(expression, values[0], at, &x[0]))
            return broken;
        return values[x[0] != 0 ? 1 : 2];
    }
    for (size_t i = 0; i < count; i++)
        if (!as_number(expression, values[i], at, &x[i]))
            return broken;
    return apply_numbers(expression, function, x, count, at);
}

static struct model_value call(struct expression *expression, const char *name, const char *at) {
    struct model_value values[ARGUMENTS_MAX];
    size_t count = 0, function = 0;
    if (!take(expression, ")")) {
        do {
            if (count == ARGUMENTS_MAX) {
                FAIL(expression, expression->at, "more than %d arguments", ARGUMENTS_MAX);
                return broken;
            }
            values[count++] = comparison(expression);
        } while (take(expression, ","));
        if (!take(expression, ")"))
            FAIL(expression, expression->at, "\")\" is missing after the arguments of %s", name);
    }
    if (expression->failed)
        return broken;
    while (function < ARRAY_LEN(function_names) && strcmp(function_names[function], name) != 0)
        function++;
    if (function < ARRAY_LEN(function_names))
        return apply(expression, (enum function)function, values, count, at);
    if (fail(expression)) {
        reader_error(expression->reader, position(expression->scalar, at),
                     "there is no function \"%s\"", name);
        reader_hint_names(expression->reader, name, function_names, ARRAY_LEN(function_names));
    }
    return broken;
}

#define NAMES_HINTED 100

static void unknown_variable(struct expression *expression, const char *name, const char *at) {
    struct reader *reader = expression->reader;
    const char *names[NAMES_HINTED];
    size_t count = 0;
    if (!fail(expression))
        return;
    reader_error(reader, position(expression->scalar, at), "there is no variable \"%.60s\" here",
                 name);
    const struct tree *later = tree_get(reader->let, name);
    if (later != NULL) {
        reader_hint(reader,
                    "it is defined later, under let: in line %d; variables use earlier "
                    "ones only",
                    later->pos.line);
        return;
    }
    for (const struct variable *v = expression->scope; v != NULL && count < NAMES_HINTED;
         v = v->next)
        names[count++] = v->name;
    if (reader->use != NULL && diag_did_you_mean(name, names, count) == NULL)
        reader_hint(reader, "a block sees let: and its own parameters; add a parameter");
    else if (count > 0)
        reader_hint_names(reader, name, names, count);
    else
        reader_hint(reader, "define it under let:");
}

static struct model_value variable_or_call(struct expression *expression) {
    const char *start = expression->at;
    while (expression->at < expression->end && name_part(*expression->at))
        expression->at++;
    const char *name =
        arena_printf(expression->reader->arena, "%.*s", (int)(expression->at - start), start);
    if (take(expression, "("))
        return call(expression, name, start);
    if (strcmp(name, "true") == 0 || strcmp(name, "false") == 0)
        return number_value(name[0] == 't');
    for (const struct variable *v = expression->scope; v != NULL; v = v->next)
        if (strcmp(v->name, name) == 0) {
            if (v->value.kind == MODEL_BROKEN)
                expression->failed = true;
            return v->value;
        }
    unknown_variable(expression, name, start);
    return broken;
}

/* Digits, at most one point, an exponent: 64, 0.5, .5, 1e-3. Bytes taken, 0: no number. */
static size_t number_length(const char *text, const char *end) {
    const char *at = text;
    size_t digits = 0;
    for (; at < end && isdigit((unsigned char)*at); at++)
        digits++;
    if (at < end && *at == '.')
        for (at++; at < end && isdigit((unsigned char)*at); at++)
            digits++;
    if (digits == 0)
        return 0;
    if (at < end && (*at == 'e' || *at == 'E')) {
        const char *exponent = at + 1;
        if (exponent < end && (*exponent == '+' || *exponent == '-'))
            exponent++;
        if (exponent < end && isdigit((unsigned char)*exponent)) {
            while (exponent < end && isdigit((unsigned char)*exponent))
                exponent++;
            at = exponent;
        }
    }
    return (size_t)(at - text);
}

static struct model_value quoted_text(struct expression *expression) {
    const char quote = *expression->at++, *start = expression->at;
    while (expression->at < expression->end && *expression->at != quote)
        expression->at++;
    if (expression->at == expression->end) {
        FAIL(expression, start - 1, "the closing %c is missing", quote);
        return broken;
    }
    const char *text =
        arena_printf(expression->reader->arena, "%.*s", (int)(expression->at - start), start);
    expression->at++;
    return (struct model_value){.kind = MODEL_TEXT, .text = text};
}

static struct model_value primary(struct expression *expression) {
    skip_space(expression);
    const char *start = expression->at;
    const char c = start < expression->end ? *start : '\0';
    const size_t digits = number_length(start, expression->end);
    if (digits > 0) {
        expression->at += digits;
        return checked(expression, strtod(start, NULL), start);
    }
    if (name_start(c))
        return variable_or_call(expression);
    if (c == '\'' || c == '"')
        return quoted_text(expression);
    if (take(expression, "(")) {
        const struct model_value value = comparison(expression);
        if (!take(expression, ")"))
            FAIL(expression, expression->at, "\")\" is missing");
        return value;
    }
    if (c == '\0')
        FAIL(expression, start, "the expression ends too early");
    else
        FAIL(expression, start, "a number or a variable is expected here");
    return broken;
}

static struct model_value sign(struct expression *expression);

static struct model_value power(struct expression *expression) {
    const char *start = expression->at;
    const struct model_value base = primary(expression);
    double a, b;
    if (expression->failed || (!take(expression, "**") && !take(expression, "^")))
        return base;
    const struct model_value exponent = sign(expression);
    if (expression->failed || !as_number(expression, base, start, &a) ||
        !as_number(expression, exponent, start, &b))
        return broken;
    return checked(expression, pow(a, b), start);
}

static struct model_value sign(struct expression *expression) {
    skip_space(expression);
    const char *start = expression->at;
    double x;
    if (++expression->nesting > NESTING_MAX) {
        FAIL(expression, start, "the expression is nested more than %d deep", NESTING_MAX);
        return broken;
    }
    struct model_value value;
    if (take(expression, "-")) {
        value = sign(expression);
        value = !expression->failed && as_number(expression, value, start, &x) ? number_value(-x)
                                                                               : broken;
    } else {
        value = power(expression);
    }
    expression->nesting--;
    return value;
}

static struct model_value divide(struct expression *expression, char op, double a, double b,
                                 const char *at) {
    if (b == 0) {
        FAIL(expression, at, "division by zero");
        return broken;
    }
    return checked(expression, op == '/' ? a / b : a - floor(a / b) * b, at);
}

static struct model_value product(struct expression *expression) {
    struct model_value value = sign(expression);
    for (;;) {
        skip_space(expression);
        const char *at = expression->at;
        const char op = at < expression->end ? *at : '\0';
        if (expression->failed ||
            !(take(expression, "*") || take(expression, "/") || take(expression, "%")))
            return value;
        const struct model_value right = sign(expression);
        double a, b;
        if (expression->failed || !as_number(expression, value, at, &a) ||
            !as_number(expression, right, at, &b))
            return broken;
        value = op == '*' ? checked(expression, a * b, at) : divide(expression, op, a, b, at);
    }
}

static struct model_value sum(struct expression *expression) {
    struct model_value value = product(expression);
    for (;;) {
        skip_space(expression);
        const char *at = expression->at;
        const double factor = at < expression->end && *at == '-' ? -1 : 1;
        if (expression->failed || !(take(expression, "+") || take(expression, "-")))
            return value;
        const struct model_value right = product(expression);
        double a, b;
        if (expression->failed || !as_number(expression, value, at, &a) ||
            !as_number(expression, right, at, &b))
            return broken;
        value = checked(expression, a + factor * b, at);
    }
}

enum relation { R_EQUAL, R_DIFFERENT, R_LESS_EQUAL, R_GREATER_EQUAL, R_LESS, R_GREATER };
static const char *const relations[] = {"==", "!=", "<=", ">=", "<", ">"};

/* Two texts can be equal or different; everything else compares numbers. */
static struct model_value compare(struct expression *expression, enum relation relation,
                                  struct model_value left, struct model_value right,
                                  const char *at) {
    double a = 0, b = 0;
    if (relation <= R_DIFFERENT && (left.kind == MODEL_TEXT || right.kind == MODEL_TEXT)) {
        struct arena *arena = expression->reader->arena;
        a = strcmp(expr_text(arena, left), expr_text(arena, right));
    } else if (!as_number(expression, left, at, &a) || !as_number(expression, right, at, &b)) {
        return broken;
    }
    const bool results[] = {a == b, a != b, a <= b, a >= b, a<b, a> b};
    return number_value(results[relation]);
}

static struct model_value comparison(struct expression *expression) {
    struct model_value left = sum(expression);
    skip_space(expression);
    const char *at = expression->at;
    for (size_t i = 0; i < ARRAY_LEN(relations) && !expression->failed; i++) {
        if (!take(expression, relations[i]))
            continue;
        const struct model_value right = sum(expression);
        if (expression->failed)
            return broken;
        return compare(expression, (enum relation)i, left, right, at);
    }
    return expression->failed ? broken : left;
}

/* The expression between "${" and "}". */
static struct model_value evaluate(struct reader *reader, const struct tree *scalar,
                                   const struct variable *scope, const char *start,
                                   const char *end) {
    struct expression expression = {
        .reader = reader, .scalar = scalar, .scope = scope, .at = start, .end = end};
    const struct model_value value = comparison(&expression);
    skip_space(&expression);
    if (!expression.failed && expression.at < end)
        FAIL(&expression, expression.at, "an operator or \"}\" is expected here");
    return expression.failed ? broken : value;
}

const char *expr_text(struct arena *arena, struct model_value value) {
    if (value.kind != MODEL_NUMBER)
        return value.kind == MODEL_TEXT ? value.text : "";
    if (value.number == floor(value.number))
        return arena_printf(arena, "%.0f", value.number + 0.0); /* + 0.0: no "-0" */
    return arena_printf(arena, "%.10g", value.number);
}

/* A literal: a number when all of it reads as one, else text. */
static struct model_value literal(struct reader *reader, const struct tree *scalar) {
    const char *text = scalar->text;
    const bool minus = text[0] == '-' || text[0] == '+';
    const size_t length = number_length(text + minus, text + strlen(text));
    if (length > 0 && text[minus + length] == '\0') {
        const double number = strtod(text, NULL);
        if (isfinite(number) && fabs(number) < MODEL_NUMBER_MAX)
            return number_value(number);
        reader_error(reader, scalar->pos, "the number %.40s is too large", text);
        return broken;
    }
    return (struct model_value){.kind = MODEL_TEXT, .text = text};
}

/* Where the "}" that belongs to the "${" at start is: the first outside quotes. NULL: nowhere. */
static const char *closing_brace(const char *start) {
    char quote = '\0';
    for (const char *c = start + 2; *c != '\0'; c++) {
        if (quote == '\0' && *c == '}')
            return c;
        if (quote == '\0' && (*c == '\'' || *c == '"'))
            quote = *c;
        else if (*c == quote)
            quote = '\0';
    }
    return strchr(start, '}');
}

static struct model_value too_long(struct reader *reader, const struct tree *scalar) {
    reader_error(reader, scalar->pos, "the text is longer than %d characters", MODEL_TEXT_MAX);
    return broken;
}

struct model_value expr_value(struct reader *reader, const struct tree *scalar,
                              const struct variable *scope) {
    char text[MODEL_TEXT_MAX * 2 + 1];
    size_t length = 0;
    const char *at = scalar->text;
    if (strstr(at, "${") == NULL)
        return strlen(at) > MODEL_TEXT_MAX ? too_long(reader, scalar) : literal(reader, scalar);
    while (*at != '\0') {
        const char *piece = at;
        size_t piece_length = 1;
        if (at[0] == '$' && at[1] == '{') {
            const char *close = closing_brace(at);
            if (close == NULL) {
                reader_error(reader, position(scalar, at), "\"${\" without \"}\"");
                return broken;
            }
            const struct model_value value = evaluate(reader, scalar, scope, at + 2, close);
            if (value.kind == MODEL_BROKEN || (at == scalar->text && close[1] == '\0'))
                return value;
            piece = expr_text(reader->arena, value);
            piece_length = strlen(piece);
            at = close + 1;
        } else {
            at++;
        }
        if (length + piece_length > MODEL_TEXT_MAX)
            return too_long(reader, scalar);
        memcpy(text + length, piece, piece_length);
        length += piece_length;
    }
    text[length] = '\0';
    return (struct model_value){.kind = MODEL_TEXT, .text = arena_strdup(reader->arena, text)};
}
