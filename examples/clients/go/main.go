// A client in Go: it reads one invocation to its end, whatever happens to the socket, and nothing is
// lost, repeated or run twice. It answers no questions.
//
//	go mod init client && go get github.com/gorilla/websocket
//	go run . ws://localhost:8088/invocations_ws/ws '{"message": "hello"}'
package main

import (
	crypto "crypto/rand"
	"encoding/json"
	"fmt"
	"log"
	"math/rand"
	"net/http"
	"os"
	"time"

	"github.com/gorilla/websocket"
)

const (
	silence  = time.Minute     // after which a socket is lost; the server pings more often
	patience = 5 * time.Minute // without a frame, after which there is no server
)

type run struct {
	id      string
	payload json.RawMessage
	cursor  int  // the number of the last entry that was taken
	known   bool // whether any answer has shown that the server has the invocation
	heard   time.Time
}

type frame struct {
	Type    string
	Action  string
	Number  int `json:"sequence_number"`
	Payload json.RawMessage
	Error   struct{ Code, Message string }
}

// opening is what is said of the run on a new socket.
func (r *run) opening() map[string]any {
	if r.known {
		return map[string]any{"action": "attach_invocation", "invocation_id": r.id, "starting_after": r.cursor}
	}
	return map[string]any{"action": "invoke", "invocation_id": r.id, "payload": r.payload,
		"query_id": "1", "if_exists": "attach"} // if it had arrived, it is not run again
}

// follow reads from one socket. It tells whether the run is over; else the socket was lost, by err.
func (r *run) follow(url string) (over bool, err error) {
	header := http.Header{"Authorization": {"Bearer " + os.Getenv("TOKEN")}}
	conn, answer, err := websocket.DefaultDialer.Dial(url, header)
	if err != nil {
		final := map[int]bool{400: true, 401: true, 403: true, 404: true, 426: true}
		return answer != nil && final[answer.StatusCode], err
	}
	defer conn.Close()
	alive := func() { conn.SetReadDeadline(time.Now().Add(silence)) }
	pong := conn.PingHandler()
	conn.SetPingHandler(func(data string) error { alive(); return pong(data) })
	if err := conn.WriteJSON(r.opening()); err != nil {
		return false, err
	}
	for {
		alive()
		var f frame
		if err := conn.ReadJSON(&f); err != nil {
			return false, err
		}
		r.heard = time.Now()
		if over, err := r.take(f); over || err != nil {
			return over, err
		}
	}
}

// take makes of a frame what it means; a type that it does not know, it passes over.
func (r *run) take(f frame) (over bool, err error) {
	switch f.Type {
	case "stream_chunk", "input_required", "input_received":
		if f.Number == r.cursor+1 {
			r.cursor = f.Number
			fmt.Println(f.Type, f.Number, string(f.Payload))
		} else if f.Number > r.cursor && f.Type == "stream_chunk" {
			return false, fmt.Errorf("chunk %d came after %d", f.Number, r.cursor)
		}
	case "result", "stream_end":
		fmt.Println(f.Type, string(f.Payload))
		return true, nil
	case "error":
		again := f.Error.Code == "store_unavailable" || f.Error.Code == "shutting_down"
		return !again || f.Action == "", fmt.Errorf("%s: %s", f.Error.Code, f.Error.Message)
	default:
		r.known = r.known || f.Type == "accepted"
		return false, nil
	}
	r.known = true
	return false, nil
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: go run . URL PAYLOAD")
	}
	id := make([]byte, 16) // that nobody guesses
	crypto.Read(id)
	r := &run{id: fmt.Sprintf("%x", id), payload: json.RawMessage(os.Args[2]), heard: time.Now()}
	first, longest := 100*time.Millisecond, 10*time.Second
	for bound := first; ; bound *= 2 {
		before := r.cursor
		over, err := r.follow(os.Args[1])
		if over && err == nil {
			return
		}
		if over || time.Since(r.heard) > patience {
			log.Fatal(err)
		}
		if r.cursor > before {
			bound = first
		} else if bound > longest {
			bound = longest
		}
		time.Sleep(time.Duration(rand.Int63n(int64(bound))))
	}
}
