/*
 * model_yaml.c: libyaml events -> tree with positions; the first stage of reading a model.
 *
 * The language uses a plain part of YAML: one document of maps, lists and scalars. Anchors,
 * aliases, tags and merge keys are refused (blocks and let: say the same more readably, and cannot
 * recurse), and so are tabs in the indentation and repeated keys, which YAML parsers tend to let
 * pass.
 *
 * An expression ${...} may contain characters that end a scalar inside {...} and [...]. Before
 * parsing, those characters are replaced one by one by characters from Unicode's private use area
 * (columns stay what they are) and put back in every scalar.
 */
#include "compiler/model_yaml.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "common/vec.h"

/* Written as UTF-8 "\xEE\x80\x80" + index: U+E000 .. U+E004. */
static const char shielded[] = "{},[]";
#define SHIELD_BYTES 3

struct reading {
    struct arena *arena;
    struct diag *diag;
    yaml_parser_t parser;
    int depth;
};

const struct tree *tree_get(const struct tree *map, const char *key) {
    if (map == NULL || map->kind != TREE_MAP)
        return NULL;
    for (size_t i = 0; i < map->count; i++)
        if (strcmp(map->keys[i]->text, key) == 0)
            return map->items[i];
    return NULL;
}

const char *tree_kind_name(const struct tree *tree) {
    if (tree_is_empty(tree))
        return "nothing";
    return tree->kind == TREE_LIST ? "a list" : tree->kind == TREE_MAP ? "a map" : "text";
}

bool tree_is_empty(const struct tree *tree) {
    return tree->kind == TREE_SCALAR && !tree->quoted && tree->text[0] == '\0';
}

/* Length of the UTF-8 sequence at s, 0 when it is none (RFC 3629: no overlong forms, no surrogates,
 * nothing above U+10FFFF). */
static int utf8_length(const unsigned char *s) {
    if (s[0] < 0x80)
        return 1;
    const int length = s[0] >= 0xc2 && s[0] <= 0xdf   ? 2
                       : s[0] >= 0xe0 && s[0] <= 0xef ? 3
                       : s[0] >= 0xf0 && s[0] <= 0xf4 ? 4
                                                      : 0;
    for (int i = 1; i < length; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return length;
}

static void check_line(const char *line, size_t length, int number, struct diag *diag) {
    const size_t indent = strspn(line, " ");
    const size_t blank = strspn(line, " \t");
    if (indent < length && line[indent] == '\t' && blank < length && line[blank] != '#') {
        diag_error(diag, (struct diag_pos){number, (int)indent + 1}, "a tab in the indentation");
        diag_hint(diag, "YAML indents with spaces only");
    }
    int column = 1;
    for (size_t i = 0; i < length; column++) {
        const unsigned char c = (unsigned char)line[i];
        const int step = utf8_length((const unsigned char *)line + i);
        if ((c < ' ' && c != '\t' && c != '\r') || c == 0x7f) {
            diag_error(diag, (struct diag_pos){number, column},
                       "the control character 0x%02x is no text", c);
            return;
        }
        if (step == 0 || i + (size_t)step > length) {
            diag_error(diag, (struct diag_pos){number, column}, "the byte 0x%02x is not UTF-8 text",
                       (unsigned)(unsigned char)line[i]);
            return;
        }
        i += (size_t)step;
    }
}

/* What libyaml would not report, or not understandably. */
static bool check_text(const char *text, struct diag *diag) {
    const size_t before = diag->count;
    if (strlen(text) > YAML_TEXT_MAX) {
        diag_error(diag, (struct diag_pos){0, 0}, "the model file is larger than %d bytes",
                   YAML_TEXT_MAX);
        return false;
    }
    int number = 1;
    for (const char *line = text; *line != '\0' && diag->count < DIAG_MAX; number++) {
        const size_t length = strcspn(line, "\n");
        check_line(line, length, number, diag);
        line += length + (line[length] == '\n');
    }
    return diag->count == before;
}

/* The expression that starts at s ("${"): bytes up to and with its "}", or 0. */
static size_t expression_length(const char *s) {
    if (s[0] != '$' || s[1] != '{')
        return 0;
    const size_t inside = strcspn(s + 2, "{}\r\n");
    return s[2 + inside] == '}' ? inside + 3 : 0;
}

static char *shield(const char *text) {
    const size_t length = strlen(text);
    char *result = malloc(length * SHIELD_BYTES + 1), *to = result;
    if (result == NULL)
        abort();
    size_t left = 0; /* bytes of the present expression still to come */
    for (const char *from = text; *from != '\0'; from++) {
        if (left == 0)
            left = expression_length(from);
        const char *found = left > 0 ? strchr(shielded, *from) : NULL;
        if (found != NULL) {
            *to++ = (char)0xee;
            *to++ = (char)0x80;
            *to++ = (char)(0x80 + (found - shielded));
        } else {
            *to++ = *from;
        }
        left -= left > 0;
    }
    *to = '\0';
    return result;
}

static const char *unshield(struct arena *arena, const char *value, size_t length) {
    char *result = arena_alloc(arena, length + 1), *to = result;
    for (size_t i = 0; i < length; i++) {
        const unsigned char *c = (const unsigned char *)value + i;
        if (i + 2 < length && c[0] == 0xee && c[1] == 0x80 && c[2] < 0x80 + sizeof(shielded) - 1) {
            *to++ = shielded[c[2] - 0x80];
            i += 2;
        } else {
            *to++ = (char)*c;
        }
    }
    *to = '\0';
    return result;
}

static struct diag_pos position(yaml_mark_t mark) {
    return (struct diag_pos){(int)mark.line + 1, (int)mark.column + 1};
}

/* libyaml's words for the slips that happen most, said for the person who made them. */
static void hint_syntax(struct diag *diag, const char *problem) {
    if (strstr(problem, "mapping values are not allowed") != NULL)
        diag_hint(diag, "a second \"key: value\" on this line, or a line indented too far; use "
                        "{key: value} to write a map in one line");
    else if (strstr(problem, "',' or '}'") != NULL)
        diag_hint(diag, "a comma or a closing brace is missing");
    else if (strstr(problem, "',' or ']'") != NULL)
        diag_hint(diag, "a comma or a closing bracket is missing");
    else if (strstr(problem, "expected key") != NULL || strstr(problem, "expected ':'") != NULL)
        diag_hint(diag, "keys of one map start in the same column and end with a colon");
    else if (strstr(problem, "block end") != NULL || strstr(problem, "indicator") != NULL)
        diag_hint(diag, "check the indentation: entries of one list or map start in the same "
                        "column");
}

static bool next_event(struct reading *reading, yaml_event_t *event) {
    if (yaml_parser_parse(&reading->parser, event))
        return true;
    const yaml_parser_t *parser = &reading->parser;
    const char *problem = parser->problem != NULL ? parser->problem : "unreadable";
    if (parser->error == YAML_READER_ERROR) {
        diag_error(reading->diag, (struct diag_pos){0, 0}, "not readable as text: %s", problem);
        return false;
    }
    const struct diag_pos pos = position(parser->problem_mark);
    const int begun = parser->context != NULL ? (int)parser->context_mark.line + 1 : pos.line;
    if (begun != pos.line)
        diag_error(reading->diag, pos, "YAML: %s %s that begins in line %d", problem,
                   parser->context, begun);
    else
        diag_error(reading->diag, pos, "YAML: %s%s%s", problem, parser->context != NULL ? " " : "",
                   parser->context != NULL ? parser->context : "");
    hint_syntax(reading->diag, problem);
    return false;
}

/* Anchors and tags are no part of the language. */
static void refuse_anchor(struct reading *reading, struct diag_pos pos, const yaml_char_t *anchor,
                          const yaml_char_t *tag) {
    if (anchor != NULL) {
        diag_error(reading->diag, pos, "YAML anchors (&%s) are not used in models",
                   (const char *)anchor);
        diag_hint(reading->diag, "give a value a name under let:, and layers a name under blocks:");
    }
    if (tag != NULL) {
        diag_error(reading->diag, pos, "YAML tags (%s) are not used in models", (const char *)tag);
        diag_hint(reading->diag, "leave it out");
    }
}

static bool read_node(struct reading *reading, yaml_event_t *event, struct tree **out);

static bool read_list(struct reading *reading, struct tree *tree) {
    VEC(struct tree *) items = {0};
    bool ok = true;
    for (;;) {
        yaml_event_t event;
        struct tree *item = NULL;
        if (!next_event(reading, &event)) {
            ok = false;
            break;
        }
        if (event.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&event);
            break;
        }
        ok = read_node(reading, &event, &item);
        if (!ok)
            break;
        vec_push(&items, item);
    }
    tree->count = items.count;
    tree->items = ARENA_ARRAY(reading->arena, struct tree *, items.count + 1);
    for (size_t i = 0; i < items.count; i++)
        tree->items[i] = items.items[i];
    vec_free(&items);
    return ok;
}

static bool same_key(struct tree *const *keys, size_t count, const struct tree *key,
                     struct diag *diag) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(keys[i]->text, key->text) == 0) {
            diag_error(diag, key->pos, "the key \"%s\" is here twice", key->text);
            diag_hint(diag, "the first one is in line %d", keys[i]->pos.line);
            return true;
        }
    return false;
}

/* Reads one key and its value; *more is false at the end of the map. */
static bool read_pair(struct reading *reading, struct tree **key, struct tree **value, bool *more) {
    yaml_event_t event;
    if (!next_event(reading, &event))
        return false;
    *more = event.type != YAML_MAPPING_END_EVENT;
    if (!*more) {
        yaml_event_delete(&event);
        return true;
    }
    return read_node(reading, &event, key) && next_event(reading, &event) &&
           read_node(reading, &event, value);
}

#define KEYS_MAX 512 /* of one map */

static bool read_map(struct reading *reading, struct tree *tree) {
    VEC(struct tree *) keys = {0};
    VEC(struct tree *) values = {0};
    bool ok, more = true;
    for (;;) {
        struct tree *key = NULL, *value = NULL;
        ok = read_pair(reading, &key, &value, &more);
        if (!ok || !more)
            break;
        if (key->kind != TREE_SCALAR) {
            diag_error(reading->diag, key->pos, "%s cannot be a key", tree_kind_name(key));
            diag_hint(reading->diag, "write a word before the colon; an expression ${...} ends on "
                                     "its own line");
            continue;
        }
        if (keys.count >= KEYS_MAX) {
            diag_error(reading->diag, key->pos, "more than %d keys", KEYS_MAX);
            ok = false;
            break;
        }
        if (same_key(keys.items, keys.count, key, reading->diag))
            continue;
        vec_push(&keys, key);
        vec_push(&values, value);
    }
    tree->count = keys.count;
    tree->keys = ARENA_ARRAY(reading->arena, struct tree *, keys.count + 1);
    tree->items = ARENA_ARRAY(reading->arena, struct tree *, keys.count + 1);
    for (size_t i = 0; i < keys.count; i++) {
        tree->keys[i] = keys.items[i];
        tree->items[i] = values.items[i];
    }
    vec_free(&keys);
    vec_free(&values);
    return ok;
}

static bool read_inside(struct reading *reading, struct tree *tree) {
    if (reading->depth >= YAML_DEPTH_MAX) {
        diag_error(reading->diag, tree->pos, "lists and maps are nested more than %d deep",
                   YAML_DEPTH_MAX);
        return false;
    }
    reading->depth++;
    const bool ok = tree->kind == TREE_LIST ? read_list(reading, tree) : read_map(reading, tree);
    reading->depth--;
    return ok;
}

/* The node that an event starts; the event is deleted here. */
static bool read_node(struct reading *reading, yaml_event_t *event, struct tree **out) {
    struct tree *tree = ARENA_NEW(reading->arena, struct tree);
    tree->pos = position(event->start_mark);
    tree->text = "";
    *out = tree;
    const yaml_event_type_t type = event->type;
    if (type == YAML_SCALAR_EVENT) {
        tree->kind = TREE_SCALAR;
        tree->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
        tree->text = unshield(reading->arena, (const char *)event->data.scalar.value,
                              event->data.scalar.length);
        refuse_anchor(reading, tree->pos, event->data.scalar.anchor, event->data.scalar.tag);
    } else if (type == YAML_SEQUENCE_START_EVENT) {
        tree->kind = TREE_LIST;
        refuse_anchor(reading, tree->pos, event->data.sequence_start.anchor,
                      event->data.sequence_start.tag);
    } else if (type == YAML_MAPPING_START_EVENT) {
        tree->kind = TREE_MAP;
        refuse_anchor(reading, tree->pos, event->data.mapping_start.anchor,
                      event->data.mapping_start.tag);
    } else { /* an alias: nothing else can stand where a node begins */
        diag_error(reading->diag, tree->pos, "YAML aliases (*%s) are not used in models",
                   (const char *)event->data.alias.anchor);
        diag_hint(reading->diag, "use a block or a variable of let: instead");
    }
    yaml_event_delete(event);
    return tree->kind == TREE_SCALAR || read_inside(reading, tree);
}

static bool read_document(struct reading *reading, struct tree **out) {
    yaml_event_t event;
    if (!next_event(reading, &event)) /* stream start */
        return false;
    yaml_event_delete(&event);
    if (!next_event(reading, &event)) /* document start */
        return false;
    const bool empty = event.type == YAML_STREAM_END_EVENT;
    yaml_event_delete(&event);
    if (empty) {
        diag_error(reading->diag, (struct diag_pos){0, 0}, "the model file is empty");
        diag_hint(reading->diag, "a model has at least input:, labels: and layers:");
        return false;
    }
    if (!next_event(reading, &event) || !read_node(reading, &event, out))
        return false;
    if (!next_event(reading, &event)) /* document end */
        return false;
    yaml_event_delete(&event);
    if (!next_event(reading, &event))
        return false;
    if (event.type != YAML_STREAM_END_EVENT) {
        diag_error(reading->diag, position(event.start_mark), "a second YAML document starts here");
        diag_hint(reading->diag, "one file holds one model; remove the line \"---\"");
    }
    yaml_event_delete(&event);
    return true;
}

bool yaml_read(struct arena *arena, const char *text, struct tree **out, struct diag *diag) {
    const size_t before = diag->count;
    *out = NULL;
    if (!check_text(text, diag))
        return false;
    struct reading reading = {.arena = arena, .diag = diag};
    if (!yaml_parser_initialize(&reading.parser)) {
        diag_error(diag, (struct diag_pos){0, 0}, "out of memory");
        return false;
    }
    char *safe = shield(text);
    yaml_parser_set_encoding(&reading.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&reading.parser, (const unsigned char *)safe, strlen(safe));
    const bool ok = read_document(&reading, out);
    yaml_parser_delete(&reading.parser);
    free(safe);
    return ok && diag->count == before;
}
