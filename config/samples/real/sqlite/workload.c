/* A workload for the SQLite that was compiled beside it: 200,000 orders, indexes, joins, windows, recursion, an
 * integrity check. Its data come from a fixed generator, so every honest run prints the same bytes. */
#include <stdio.h>
#include <stdlib.h>

#include "sqlite3-binding.h"

static int print_row(void *unused, int count, char **values, char **names) {
    (void)unused;
    (void)names;
    for (int i = 0; i < count; i++) printf("%s%s", i ? "|" : "", values[i] ? values[i] : "NULL");
    putchar('\n');
    return 0;
}

static void run(sqlite3 *db, const char *sql) {
    char *message = NULL;
    if (sqlite3_exec(db, sql, print_row, NULL, &message) != SQLITE_OK) {
        fprintf(stderr, "%s\nin: %s\n", message, sql);
        exit(1);
    }
}

static void fill(sqlite3 *db) {
    sqlite3_stmt *insert = NULL;
    unsigned long long state = 0x9e3779b97f4a7c15ULL;
    run(db, "BEGIN");
    if (sqlite3_prepare_v2(db, "INSERT INTO orders(customer, item, cents) VALUES (?, ?, ?)", -1, &insert, NULL) != SQLITE_OK) exit(1);
    for (int i = 0; i < 200000; i++) {
        state = state * 6364136223846793005ULL + 1442695040888963407ULL;
        sqlite3_bind_int(insert, 1, (int)((state >> 33) % 5000));
        sqlite3_bind_int(insert, 2, (int)((state >> 45) % 700));
        sqlite3_bind_int(insert, 3, (int)((state >> 20) % 100000));
        if (sqlite3_step(insert) != SQLITE_DONE) exit(1);
        sqlite3_reset(insert);
    }
    sqlite3_finalize(insert);
    run(db, "COMMIT");
}

int main(void) {
    sqlite3 *db = NULL;
    if (sqlite3_open("orders.db", &db) != SQLITE_OK) return 1;
    run(db, "SELECT 'version', sqlite_version()");
    run(db, "CREATE TABLE orders(id INTEGER PRIMARY KEY, customer INT, item INT, cents INT)");
    run(db, "CREATE TABLE items(id INTEGER PRIMARY KEY, name TEXT)");
    run(db, "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 699) "
            "INSERT INTO items SELECT i, printf('item-%03d', i) FROM n");
    fill(db);
    run(db, "CREATE INDEX by_customer ON orders(customer, cents)");
    run(db, "CREATE INDEX by_item ON orders(item)");
    run(db, "SELECT 'orders', count(*), sum(cents) FROM orders");
    run(db, "SELECT name, count(*) AS n, sum(cents) AS total FROM orders JOIN items ON items.id = item "
            "GROUP BY item ORDER BY total DESC, name LIMIT 10");
    run(db, "SELECT customer, cents, place FROM (SELECT customer, cents, rank() OVER "
            "(PARTITION BY customer ORDER BY cents DESC) AS place FROM orders) "
            "WHERE place = 3 ORDER BY cents DESC, customer LIMIT 10");
    run(db, "WITH RECURSIVE c(i, x) AS (SELECT 1, 27 UNION ALL SELECT i + 1, CASE WHEN x % 2 THEN 3 * x + 1 ELSE x / 2 END "
            "FROM c WHERE x > 1) SELECT 'collatz', max(i), max(x) FROM c");
    run(db, "UPDATE orders SET cents = cents + 1 WHERE item % 7 = 0");
    run(db, "DELETE FROM orders WHERE customer % 11 = 0");
    run(db, "VACUUM");
    run(db, "SELECT 'left', count(*), sum(cents) FROM orders");
    run(db, "PRAGMA integrity_check");
    return sqlite3_close(db) == SQLITE_OK ? 0 : 1;
}
