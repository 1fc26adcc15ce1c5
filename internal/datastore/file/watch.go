package file

import (
	"context"

	"github.com/caracal-net/caracal/internal/datastore"
)

// Watch implements datastore.Watcher.
func (s *Store) Watch(ctx context.Context, sink func(datastore.Update)) error {
	<-ctx.Done()
	return ctx.Err()
}
