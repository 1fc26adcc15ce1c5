// Package need says what a test needs of the machine. A test that lacks it is skipped by name; with
// CARACAL_TEST_REQUIRE=all, as CI sets it, the skip is a failure.
package need
